// Copying, also where the page came over plain HTTP: there browsers have no navigator.clipboard.

// Says on the button whether it worked.
export async function copy(text, button) {
  const label = (button.dataset.label ??= button.textContent);
  button.textContent = (await byClipboard(text)) || bySelection(text, button) ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = label), 1500);
}

async function byClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function bySelection(text, button) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "offscreen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  button.focus();
  return done;
}
