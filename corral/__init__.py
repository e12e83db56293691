"""corral: a server for GGUF language models, a drop-in for llama-server."""

__version__ = "0.1.0"
