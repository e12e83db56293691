"""Models that are not on this machine yet: from the Hugging Face hub, or from any address."""
