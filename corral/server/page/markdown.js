// Markdown to DOM nodes: what models write, read line by line. Text only ever becomes text nodes, so nothing in it can run.

const FENCE = /^(\s*)(```+|~~~+)\s*([\w+#.-]*)/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;

export function markdown(text) {
  const lines = text.split("\n");
  const out = document.createDocumentFragment();
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    const fence = FENCE.exec(line);
    if (fence) {
      const code = [];
      for (i++; i < lines.length && !lines[i].trim().startsWith(fence[2]); i++) code.push(lines[i].slice(Math.min(fence[1].length, indent(lines[i]))));
      i++;
      out.append(codeBlock(code.join("\n"), fence[3]));
    } else if (!line.trim()) {
      i++;
    } else if (/^#{1,6}\s/.test(line)) {
      const level = line.indexOf(" ");
      out.append(element("h" + Math.min(level + 1, 4), inline(line.slice(level).trim())));
      i++;
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      out.append(document.createElement("hr"));
      i++;
    } else if (/^\s*>/.test(line)) {
      const quoted = [];
      for (; i < lines.length && /^\s*>/.test(lines[i]); i++) quoted.push(lines[i].replace(/^\s*>\s?/, ""));
      out.append(element("blockquote", markdown(quoted.join("\n"))));
    } else if (ITEM.test(line)) {
      const [list, next] = listFrom(lines, i);
      out.append(list);
      i = next;
    } else if (line.includes("|") && /^[\s|:-]*-[\s|:-]*$/.test(lines[i + 1] ?? "")) {
      const rows = [];
      for (; i < lines.length && lines[i].includes("|"); i++) rows.push(lines[i]);
      out.append(tableOf(rows));
    } else {
      const words = [];
      for (; i < lines.length && lines[i].trim() && (!words.length || !startsBlock(lines[i])); i++) words.push(lines[i].trim());
      out.append(element("p", inline(words.join("\n"))));
    }
  }
  return out;
}

function startsBlock(line) {
  return FENCE.test(line) || ITEM.test(line) || /^(#{1,6}\s|\s*>)/.test(line);
}

function indent(line) {
  return line.length - line.trimStart().length;
}

// A list with what is nested in its items; returns it and the line after it.
function listFrom(lines, start) {
  const first = ITEM.exec(lines[start]);
  const depth = first[1].length;
  const list = document.createElement(/\d/.test(first[2]) ? "ol" : "ul");
  if (list.tagName === "OL") list.start = parseInt(first[2]);
  let i = start;
  while (i < lines.length) {
    const item = ITEM.exec(lines[i]);
    if (!item || item[1].length > depth + 1 || item[1].length < depth) break;
    const inner = [];
    for (i++; i < lines.length && (indent(lines[i]) > depth || (!lines[i].trim() && indent(lines[i + 1] ?? "") > depth)); i++)
      inner.push(lines[i].slice(Math.min(depth + 2, indent(lines[i]))));
    const entry = element("li", inline(item[3]));
    if (inner.length) entry.append(markdown(inner.join("\n")));
    list.append(entry);
  }
  return [list, i];
}

function tableOf(rows) {
  const table = document.createElement("table");
  rows.forEach((row, r) => {
    if (r === 1) return;
    const cells = row.trim().replace(/^\||\|$/g, "").split("|");
    table.append(element("tr", ...cells.map((cell) => element(r ? "td" : "th", inline(cell.trim())))));
  });
  return table;
}

function codeBlock(text, language) {
  const code = element("code", text);
  if (language) code.dataset.language = language;
  const copy = element("button", "Copy");
  copy.type = "button";
  copy.className = "copy";
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
  });
  return element("pre", code, copy);
}

// `code`, **strong**, *emphasis*, ~~gone~~, [links](address) and bare addresses
const SPAN = /(`+)([^]*?[^`])\1(?!`)|\*\*([^]+?)\*\*|__([^]+?)__|\*([^\s*][^*]*?)\*|~~([^]+?)~~|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>"')\]]+)/g;

function inline(text) {
  const out = document.createDocumentFragment();
  let last = 0;
  for (const found of text.matchAll(SPAN)) {
    const [all, , code, strong, strong2, emphasis, gone, label, target, address] = found;
    out.append(text.slice(last, found.index));
    last = found.index + all.length;
    if (code !== undefined) out.append(element("code", code));
    else if (strong ?? strong2) out.append(element("strong", inline(strong ?? strong2)));
    else if (emphasis) out.append(element("em", inline(emphasis)));
    else if (gone) out.append(element("s", inline(gone)));
    else {
      const link = element("a", label ?? address);
      link.href = target ?? address;
      link.rel = "noopener noreferrer";
      link.target = "_blank";
      out.append(link);
    }
  }
  out.append(text.slice(last));
  return out;
}

export function element(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}
