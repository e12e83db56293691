// The chat page: what is shown, and what keys and buttons do.
import { about, reply } from "./api.js";
import { loadChats, loadSettings, newChat, saveChats, saveSettings } from "./chats.js";
import { element, markdown } from "./markdown.js";

const $ = (id) => document.getElementById(id);
const chats = loadChats();
const settings = loadSettings();
let chat = newChat();
let context = null;
let running = null; // AbortController of the reply that is being written

function showChats() {
  $("chats").replaceChildren(...chats.filter((c) => c.messages.length).map((c) => {
    const open = element("button", c.title || "Untitled");
    open.className = "title";
    open.addEventListener("click", () => openChat(c));
    const gone = element("button", "✕");
    gone.className = "delete";
    gone.setAttribute("aria-label", "Delete " + c.title);
    gone.addEventListener("click", () => deleteChat(c));
    const entry = element("li", open, gone);
    if (c === chat) {
      entry.className = "open";
      open.setAttribute("aria-current", "true");
    }
    return entry;
  }));
}

function openChat(other) {
  running?.abort();
  chat = other;
  showChats();
  showMessages();
  showSide(false);
  $("meter").textContent = "";
  $("input").focus();
}

function deleteChat(gone) {
  const at = chats.indexOf(gone);
  if (at >= 0) chats.splice(at, 1);
  saveChats(chats);
  if (gone === chat) openChat(newChat());
  else showChats();
}

function showMessages() {
  const nodes = chat.messages.map((message, i) => messageNode(message, i));
  if (!nodes.length) nodes.push(element("p", "Ask something. Conversations stay in this browser."));
  if (!chat.messages.length) nodes[0].className = "empty";
  $("messages").replaceChildren(...nodes);
  scroll();
}

function messageNode(message, index) {
  if (message.role === "user") {
    const text = element("div", message.content);
    text.className = "user";
    return element("div", text, tools([["Edit", () => edit(index)], ["Copy", () => copy(message.content)]]));
  }
  const node = element("div");
  node.className = "assistant";
  fill(node, message, false);
  node.append(tools([["Copy", () => copy(message.content)], ["Again", () => again(index)]]));
  return node;
}

function fill(node, message, busy) {
  const parts = [];
  if (message.reasoning) {
    const thoughts = element("details", element("summary", busy && !message.content ? "Thinking…" : "Thoughts"), markdown(message.reasoning));
    thoughts.className = "reasoning";
    thoughts.open = node.querySelector("details")?.open ?? false;
    parts.push(thoughts);
  }
  const text = element("div", markdown(message.content));
  if (busy) text.className = "waiting";
  parts.push(text);
  if (message.error) {
    const error = element("p", message.error);
    error.className = "error";
    error.setAttribute("role", "alert");
    parts.push(error);
  }
  node.replaceChildren(...parts);
}

function tools(actions) {
  const row = element("div", ...actions.map(([label, action]) => {
    const button = element("button", label);
    button.type = "button";
    button.addEventListener("click", action);
    return button;
  }));
  row.className = "tools";
  return row;
}

function copy(text) {
  navigator.clipboard?.writeText(text);
}

function edit(index) {
  running?.abort();
  $("input").value = chat.messages[index].content;
  chat.messages.length = index;
  showMessages();
  grow();
  $("input").focus();
}

function again(index) {
  if (running) return;
  chat.messages.length = index;
  answer();
}

function send() {
  const content = $("input").value.trim();
  if (!content || running) return;
  $("input").value = "";
  grow();
  if (!chat.messages.length) {
    chat.title = content.slice(0, 60);
    chats.unshift(chat);
  }
  chat.messages.push({ role: "user", content });
  answer();
}

// Have the last message answered, showing the text as it comes: at most once a frame.
async function answer() {
  const here = chat, message = { role: "assistant", content: "", reasoning: "" };
  const asked = [
    ...(settings.system ? [{ role: "system", content: settings.system }] : []),
    ...here.messages.filter((m) => !m.error || m.content).map(({ role, content }) => ({ role, content })),
  ];
  here.messages.push(message);
  showMessages();
  showChats();
  const node = $("messages").lastElementChild;
  const control = (running = new AbortController());
  busy(true);
  let due = false, count = 0, first = 0;
  const show = () => {
    due = false;
    if (running !== control) return;
    const low = atBottom();
    fill(node, message, true);
    if (low) scroll();
    if (count > 1) $("meter").textContent = `${((count - 1) / ((performance.now() - first) / 1000)).toFixed(1)} tokens/s`;
  };
  show();
  try {
    for await (const piece of reply(asked, settings, control.signal)) {
      if (piece.content || piece.reasoning) {
        if (!count++) first = performance.now();
        message.content += piece.content ?? "";
        message.reasoning += piece.reasoning ?? "";
      }
      if (piece.finish === "length") message.error = "The answer was cut: the limit of tokens was reached.";
      if (piece.usage) showUsage(piece);
      if (!due) due = requestAnimationFrame(show) > 0;
    }
  } catch (error) {
    if (!control.signal.aborted) message.error = error.message;
  }
  if (running === control) {
    running = null;
    busy(false);
  }
  saveChats(chats);
  if (chat === here) {
    const low = atBottom();
    node.replaceWith(messageNode(message, here.messages.indexOf(message)));
    if (low) scroll();
  }
}

function showUsage({ usage, timings }) {
  const parts = [];
  if (timings?.predicted_per_second) parts.push(`${timings.predicted_per_second.toFixed(1)} tokens/s`);
  parts.push(context ? `${usage.total_tokens} of ${context} tokens` : `${usage.total_tokens} tokens`);
  $("meter").textContent = parts.join(" · ");
}

function busy(yes) {
  $("send").hidden = yes;
  $("stop").hidden = !yes;
}

function atBottom() {
  const box = $("messages");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 60;
}

function scroll() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

function grow() {
  const input = $("input");
  input.style.height = "auto";
  input.style.height = input.scrollHeight + 2 + "px";
}

function showSide(shown) {
  $("side").classList.toggle("shown", shown);
  $("menu").setAttribute("aria-expanded", String(shown));
}

async function introduce() {
  try {
    const info = await about(settings);
    context = info.context;
    $("model").textContent = info.name;
    document.title = info.name;
  } catch (error) {
    $("meter").textContent = error.message;
    if (error.message === "Loading model") setTimeout(introduce, 1000);
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("input").addEventListener("input", grow);
$("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
$("stop").addEventListener("click", () => running?.abort());
$("new").addEventListener("click", () => openChat(newChat()));
$("menu").addEventListener("click", () => showSide(!$("side").classList.contains("shown")));
$("messages").addEventListener("click", () => showSide(false));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("settings").open) running?.abort();
  if (event.key.toLowerCase() === "o" && event.ctrlKey && event.shiftKey) {
    event.preventDefault();
    openChat(newChat());
  }
});
$("open-settings").addEventListener("click", () => $("settings").showModal());
for (const field of $("settings").querySelectorAll("[name]")) {
  field.value = settings[field.name] ?? "";
  field.addEventListener("input", () => {
    settings[field.name] = field.value;
    saveSettings(settings);
  });
}
$("settings").addEventListener("close", () => {
  introduce();
  $("input").focus();
});
$("forget").addEventListener("click", () => {
  if (!confirm("Delete all conversations of this browser?")) return;
  chats.length = 0;
  saveChats(chats);
  openChat(newChat());
});

showChats();
showMessages();
introduce();
