// Conversations and settings, kept in this browser only. Each conversation has an entry of its own: two open pages
// do not overwrite each other's.

const CHAT = "corral.chat.", SETTINGS = "corral.settings";
const MOST = 200;

export function loadChats() {
  const chats = keys().filter((key) => key.startsWith(CHAT)).map(read).filter(isChat);
  return chats.sort((a, b) => b.time - a.time);
}

export function newChat() {
  return { id: Date.now().toString(36) + Math.random().toString(36).slice(2, 8), title: "", time: 0, messages: [] };
}

// Puts it first and keeps it; where the browser has no room left, the oldest go.
export function saveChat(chats, chat) {
  chat.time = Date.now();
  remove(chats, chat);
  chats.unshift(chat);
  while (chats.length > MOST) deleteChat(chats, chats.at(-1));
  while (!write(CHAT + chat.id, chat) && chats.length > 1 && storage()) deleteChat(chats, chats.at(-1));
}

export function deleteChat(chats, chat) {
  remove(chats, chat);
  storage()?.removeItem(CHAT + chat.id);
}

// Calls back when another page of this browser has changed a conversation.
export function onChange(callback) {
  addEventListener("storage", (event) => {
    if (event.key === null || event.key.startsWith(CHAT)) callback();
  });
}

export function loadSettings() {
  const settings = read(SETTINGS);
  return settings && typeof settings === "object" ? settings : {};
}

export function saveSettings(settings) {
  write(SETTINGS, settings);
}

function remove(chats, chat) {
  const at = chats.indexOf(chat);
  if (at >= 0) chats.splice(at, 1);
}

function isChat(chat) {
  return chat?.id && Array.isArray(chat.messages) && chat.messages.every((m) => m && typeof m.content === "string");
}

// null where the browser forbids it: then nothing is kept
function storage() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}

function keys() {
  const store = storage();
  return Array.from({ length: store?.length ?? 0 }, (_, i) => store.key(i));
}

function read(key) {
  try {
    return JSON.parse(storage().getItem(key));
  } catch {
    return null;
  }
}

function write(key, value) {
  try {
    storage().setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
