// The chat page: what is open, and what keys and buttons do.
import { about, reply } from "./api.js";
import { deleteChat, loadChats, loadSettings, newChat, onChange, saveChat, saveSettings } from "./chats.js";
import { element } from "./markdown.js";
import { answerNode, updateAnswer, userNode } from "./messages.js";

const $ = (id) => document.getElementById(id);
const chats = loadChats(); // the newest first
const settings = loadSettings();
const running = new Map(); // chat -> AbortController of the answer that is being written
let chat = newChat();
let editing = null; // index of the message that the next one replaces
let context = null; // tokens
let retry = 0; // timer of the next try to ask who answers here

function showChats() {
  $("chats").replaceChildren(...chats.map((c) => {
    const open = element("button", c.title || "Untitled");
    open.className = "title";
    open.title = c.title;
    open.addEventListener("click", () => openChat(c));
    const gone = element("button", "✕");
    gone.className = "delete";
    gone.setAttribute("aria-label", `Delete “${c.title}”`);
    gone.addEventListener("click", () => forget(c));
    const entry = element("li", open, gone);
    entry.classList.toggle("busy", running.has(c));
    if (c === chat) {
      entry.classList.add("open");
      open.setAttribute("aria-current", "true");
    }
    return entry;
  }));
}

function openChat(other) {
  stopEditing();
  chat = other;
  showAll();
  showSide(false);
  $("input").focus();
}

function forget(gone) {
  if (!confirm(`Delete “${gone.title}”?`)) return;
  running.get(gone)?.abort();
  deleteChat(chats, gone);
  if (gone === chat) openChat(newChat());
  else showChats();
}

function showAll() {
  showChats();
  showMessages();
  showMeter();
  const busy = running.has(chat);
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  document.body.classList.toggle("answering", busy);
}

function showMessages() {
  const last = chat.messages.length - 1;
  const nodes = chat.messages.map((message, i) => message.role === "user"
    ? userNode(message, [["Edit", () => edit(i)]])
    : answerNode(message, [["Again", () => again(i)]], i === last && running.has(chat)));
  if (!nodes.length) {
    nodes.push(element("p", element("strong", "What shall we talk about?"), element("br"), "Conversations stay in this browser."));
    nodes[0].className = "empty";
  }
  $("messages").replaceChildren(...nodes);
  toBottom();
}

function showMeter() {
  const used = chat.tokens;
  $("meter").textContent = used === undefined ? "" : context ? `${used} of ${context} tokens` : `${used} tokens`;
  $("meter").classList.toggle("full", Boolean(context && used > 0.9 * context));
}

function edit(index) {
  if (running.has(chat)) return;
  editing = index;
  $("editing").hidden = false;
  [...$("messages").children].forEach((node, i) => node.classList.toggle("replaced", i >= index));
  $("input").value = chat.messages[index].content;
  grow();
  $("input").focus();
}

function stopEditing() {
  if (editing === null) return;
  editing = null;
  $("editing").hidden = true;
  $("input").value = "";
  grow();
  for (const node of $("messages").children) node.classList.remove("replaced");
}

function again(index) {
  if (running.has(chat)) return;
  stopEditing();
  chat.messages.length = index;
  answer(chat);
}

function send() {
  const content = $("input").value.trim();
  if (!content || running.has(chat)) return;
  if (editing !== null) chat.messages.length = editing;
  stopEditing();
  $("input").value = "";
  grow();
  if (!chat.messages.length) chat.title = [...content.split("\n")[0]].slice(0, 60).join("");
  chat.messages.push({ role: "user", content });
  answer(chat);
}

// Have the last message answered, showing the text as it comes: at most once a frame. Goes on when another chat is opened.
async function answer(here) {
  const asked = here.messages.filter((m) => m.content).map(({ role, content }) => ({ role, content }));
  if (settings.system) asked.unshift({ role: "system", content: settings.system });
  const message = { role: "assistant", content: "", reasoning: "" };
  const control = new AbortController();
  here.messages.push(message);
  running.set(here, control);
  saveChat(chats, here);
  showAll();
  let due = false, count = 0;
  const show = () => {
    due = false;
    if (chat !== here || running.get(here) !== control) return;
    const low = atBottom();
    updateAnswer($("messages").lastElementChild, message, true);
    if (low) toBottom();
  };
  const began = performance.now();
  let first = began;
  try {
    for await (const piece of reply(asked, settings, control.signal)) {
      const now = performance.now();
      if (piece.content || piece.reasoning) {
        if (!count++) first = now;
        if (piece.content && message.reasoning && !message.content) message.thought = (now - first) / 1000;
        message.content += piece.content ?? "";
        message.reasoning += piece.reasoning ?? "";
      }
      if (piece.finish === "length") message.note = "Cut here: the limit of tokens was reached.";
      if (piece.usage) {
        here.tokens = piece.usage.total_tokens;
        message.stats = statsOf(piece, first - began);
      }
      if (!due) due = requestAnimationFrame(show) > 0;
    }
    if (!message.content) message.note ??= message.reasoning ? "It thought, and gave no answer." : "The answer is empty.";
  } catch (error) {
    if (control.signal.aborted) message.note = "Stopped.";
    else message.error = error.message;
    if (error.status === 401) introduce();
  }
  running.delete(here);
  if (!chats.includes(here)) return; // deleted meanwhile
  saveChat(chats, here);
  if (chat !== here) return showChats();
  const low = atBottom();
  updateAnswer($("messages").lastElementChild, message, false);
  if (low) toBottom();
  showChats();
  showMeter();
  $("send").hidden = false;
  $("stop").hidden = true;
  document.body.classList.remove("answering");
}

// As the server measured it; `waited` for the first token, in milliseconds, is what was seen here.
function statsOf({ usage, timings }, waited) {
  const parts = [usage.completion_tokens === 1 ? "1 token" : `${usage.completion_tokens} tokens`];
  if (timings?.predicted_per_second) parts.push(`${timings.predicted_per_second.toFixed(1)} tokens/s`);
  parts.push(`first token after ${waited < 1000 ? Math.round(waited) + " ms" : (waited / 1000).toFixed(1) + " s"}`);
  return parts.join(" · ");
}

function atBottom() {
  const box = $("messages");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 60;
}

function toBottom() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

function grow() {
  const input = $("input");
  input.style.height = "auto";
  input.style.height = input.scrollHeight + "px";
}

function showSide(shown) {
  $("side").classList.toggle("shown", shown);
  $("menu").setAttribute("aria-expanded", String(shown));
}

// Says who answers here; until somebody does, why not.
async function introduce() {
  clearTimeout(retry);
  try {
    const info = await about(settings);
    context = info.context;
    $("model").textContent = document.title = info.name;
    for (const field of fields()) if (info.defaults[field.name] > 0 && !field.placeholder) field.placeholder = info.defaults[field.name];
    $("notice").hidden = true;
    showMeter();
  } catch (error) {
    $("notice").textContent = error.status === 401 ? "This server wants an API key: " : error.message;
    if (error.status === 401) {
      const open = element("button", settings.key ? "change it" : "enter one");
      open.addEventListener("click", () => openSettings("key"));
      $("notice").append(open);
    } else {
      clearTimeout(retry);
      retry = setTimeout(introduce, 1000);
    }
    $("notice").hidden = false;
  }
}

function fields() {
  return $("settings").querySelectorAll("[name]");
}

function openSettings(name) {
  $("settings").showModal();
  $("settings").querySelector(`[name=${name}]`).focus();
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
$("stop").addEventListener("click", () => {
  running.get(chat)?.abort();
  $("input").focus();
});
$("keep").addEventListener("click", stopEditing);
$("new").addEventListener("click", () => openChat(newChat()));
$("menu").addEventListener("click", () => showSide(!$("side").classList.contains("shown")));
document.querySelector("main").addEventListener("click", (event) => {
  if (!event.target.closest("#menu")) showSide(false);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("settings").open) {
    showSide(false);
    if (editing !== null) stopEditing();
    else running.get(chat)?.abort();
  }
  if (event.key.toLowerCase() === "o" && event.ctrlKey && event.shiftKey) {
    event.preventDefault();
    openChat(newChat());
  }
});
$("open-settings").addEventListener("click", () => openSettings("system"));
for (const field of fields()) {
  field.value = settings[field.name] ?? "";
  field.addEventListener("input", () => {
    settings[field.name] = field.value.trim();
    saveSettings(settings);
  });
}
$("settings").addEventListener("close", () => {
  introduce();
  $("input").focus();
});
$("forget").addEventListener("click", () => {
  if (!confirm("Delete all conversations of this browser?")) return;
  for (const c of [...chats]) {
    running.get(c)?.abort();
    deleteChat(chats, c);
  }
  openChat(newChat());
});
onChange(() => {
  const busy = [...running.keys()];
  const kept = loadChats().map((c) => busy.find((b) => b.id === c.id) ?? c);
  chats.splice(0, chats.length, ...kept);
  if (editing === null && !running.has(chat)) chat = chats.find((c) => c.id === chat.id) ?? (chat.messages.length ? newChat() : chat);
  showAll();
});
// what has come of an answer is kept when the page goes
addEventListener("pagehide", () => {
  for (const c of running.keys()) saveChat(chats, c);
});

showAll();
introduce();
