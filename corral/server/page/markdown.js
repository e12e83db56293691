// Markdown to DOM nodes: what models write, read line by line. Text only ever becomes text nodes, so nothing in it can run.
import { copy } from "./clipboard.js";

const FENCE = /^(\s*)(```+|~~~+)\s*([\w+#.-]*)[^`]*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const QUOTE = /^\s*>\s?/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const DEEPEST = 12; // quotes and lists in each other; deeper ones are text
const LONGEST = 10000; // characters of a paragraph with spans: looking for their ends takes time that grows with the square

const sources = new WeakMap(); // of the nodes that showMarkdown made

// Fills `box` with the blocks of `text`. Blocks whose source is as before keep their nodes.
export function showMarkdown(box, text) {
  const found = [...blocks(text.split("\n"), 0)];
  found.forEach(([source, make], i) => {
    const old = box.children[i];
    if (old && sources.get(old) === source) return;
    const node = make();
    sources.set(node, source);
    if (old) old.replaceWith(node);
    else box.append(node);
  });
  while (box.children.length > found.length) box.lastElementChild.remove();
}

// [its source, a function that makes its element], for each block.
function* blocks(lines, depth) {
  let i = 0;
  while (i < lines.length) {
    if (!lines[i].trim()) {
      i++;
      continue;
    }
    const [end, make] = block(lines, i, depth);
    yield [lines.slice(i, end).join("\n"), make];
    i = end;
  }
}

function nodes(lines, depth) {
  return Array.from(blocks(lines, depth), ([, make]) => make());
}

// The block that begins at line `i`: the line after it, and what makes its element.
function block(lines, i, depth) {
  const line = lines[i];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, i, fence);
  const heading = HEADING.exec(line);
  if (heading) return [i + 1, () => element("h" + Math.min(heading[1].length + 1, 6), inline(heading[2]))];
  if (RULE.test(line)) return [i + 1, () => element("hr")];
  if (depth < DEEPEST && QUOTE.test(line)) {
    const end = endOf(lines, i, (l) => QUOTE.test(l));
    return [end, () => element("blockquote", ...nodes(lines.slice(i, end).map((l) => l.replace(QUOTE, "")), depth + 1))];
  }
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, i, depth);
  if (line.includes("|") && TABLE_RULE.test(lines[i + 1] ?? "")) {
    const end = endOf(lines, i, (l) => l.includes("|"));
    return [end, () => table(lines.slice(i, end))];
  }
  const end = endOf(lines, i + 1, (l) => l.trim() && !startsBlock(l));
  return [end, () => element("p", inline(lines.slice(i, end).map((l) => l.trim()).join("\n")))];
}

function startsBlock(line) {
  return [FENCE, ITEM, HEADING, QUOTE, RULE].some((start) => start.test(line));
}

function endOf(lines, i, belongs) {
  while (i < lines.length && belongs(lines[i])) i++;
  return i;
}

function indent(line) {
  return line.length - line.trimStart().length;
}

function fenced(lines, start, [, margin, marks, language]) {
  const end = endOf(lines, start + 1, (l) => !(l.trim().startsWith(marks) && !l.trim().replaceAll(marks[0], "")));
  const code = lines.slice(start + 1, end).map((l) => l.slice(Math.min(margin.length, indent(l))));
  return [end + 1, () => codeBlock(code.join("\n"), language)];
}

// A list with what is nested in its items.
function list(lines, start, depth) {
  const [, margin, mark] = ITEM.exec(lines[start]);
  const ordered = /\d/.test(mark);
  const entries = []; // [text of the first line, the lines below it]
  let i = start;
  while (i < lines.length) {
    const item = ITEM.exec(lines[i]);
    if (!item || RULE.test(lines[i]) || Math.abs(item[1].length - margin.length) > 1 || /\d/.test(item[2]) !== ordered) break;
    const inside = (l, next) => indent(l) > margin.length + 1 || (!l.trim() && indent(next) > margin.length + 1 && next.trim());
    const first = ++i;
    while (i < lines.length && inside(lines[i], lines[i + 1] ?? "")) i++;
    const below = lines.slice(first, i);
    const least = Math.min(...below.filter((l) => l.trim()).map(indent));
    entries.push([item[3], below.map((l) => l.slice(least))]);
    // empty lines between items do not end the list
    const next = endOf(lines, i, (l) => !l.trim());
    if (next > i && ITEM.test(lines[next] ?? "")) i = next;
  }
  return [i, () => {
    const node = element(ordered ? "ol" : "ul", ...entries.map(([text, below]) => item(text, below, depth)));
    if (ordered) node.start = parseInt(mark);
    return node;
  }];
}

function item(text, below, depth) {
  const task = /^\[([ xX])\]\s+(.*)$/.exec(text);
  const node = element("li", inline(task ? task[2] : text), ...nodes(below, depth + 1));
  if (task) {
    const box = element("input");
    box.type = "checkbox";
    box.disabled = true;
    box.checked = task[1] !== " ";
    node.prepend(box, " ");
    node.className = "task";
  }
  return node;
}

function table(lines) {
  const [head, rule, ...rows] = lines.map((l) => l.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/));
  const row = (kind, texts) => element("tr", ...head.map((_, i) => {
    const cell = element(kind, inline((texts[i] ?? "").trim().replaceAll("\\|", "|")));
    const [, left, right] = /^(:?)-+(:?)$/.exec(rule[i]?.trim() ?? "") ?? [];
    if (right) cell.className = left ? "center" : "right";
    return cell;
  }));
  const node = element("table", element("thead", row("th", head)), element("tbody", ...rows.map((r) => row("td", r))));
  const box = element("div", node);
  box.className = "scroller";
  return box;
}

function codeBlock(text, language) {
  const button = element("button", "Copy");
  button.type = "button";
  button.addEventListener("click", () => copy(text, button));
  const pre = element("pre", element("code", text));
  pre.tabIndex = 0; // so that it can be scrolled with the keyboard
  const node = element("div", element("div", element("span", language), button), pre);
  node.className = "code";
  return node;
}

// `code`, escapes, **strong**, *emphasis*, ~~gone~~, [links](address) and bare addresses
const SPAN = new RegExp([
  /(?<!`)(`+)(?!`)([^]+?)(?<!`)\1(?!`)/,
  /\\([!-/:-@[-`{-~])/,
  /\*\*(?!\s)([^]+?)(?<!\s)\*\*(?!\*)/,
  /(?<!\w)__(?!\s)([^]+?)(?<!\s)__(?!\w)/,
  /\*(?![\s*])([^*]+?)(?<!\s)\*/,
  /(?<!\w)_(?![\s_])([^_]+?)(?<!\s)_(?!\w)/,
  /~~(?!\s)([^]+?)~~/,
  /\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/,
  /(https?:\/\/[^\s<>"'`)\]]*[^\s<>"'`)\].,;:!?*])/,
].map((part) => part.source).join("|"), "g");

function inline(text) {
  const out = document.createDocumentFragment();
  if (text.length > LONGEST) {
    out.append(text);
    return out;
  }
  let last = 0;
  for (const found of text.matchAll(SPAN)) {
    const [all, , code, escaped, strong, strong2, emphasis, emphasis2, gone, label, target, address] = found;
    out.append(text.slice(last, found.index));
    last = found.index + all.length;
    if (code) out.append(element("code", code.replace(/^ (.*) $/, "$1")));
    else if (escaped) out.append(escaped);
    else if (strong ?? strong2) out.append(element("strong", inline(strong ?? strong2)));
    else if (emphasis ?? emphasis2) out.append(element("em", inline(emphasis ?? emphasis2)));
    else if (gone) out.append(element("s", inline(gone)));
    else out.append(link(label ?? address, target ?? address));
  }
  out.append(text.slice(last));
  return out;
}

function link(label, address) {
  const node = element("a", label);
  node.href = address;
  node.rel = "noopener noreferrer";
  node.target = "_blank";
  return node;
}

export function element(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}
