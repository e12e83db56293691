// Conversations and settings, kept in this browser only.

const CHATS = "corral.chats", SETTINGS = "corral.settings";
const MOST = 200;

export function loadChats() {
  const chats = read(CHATS);
  return Array.isArray(chats) ? chats.filter((chat) => chat && chat.id && Array.isArray(chat.messages)) : [];
}

// The newest are kept; when the browser has no room left, the oldest go first.
export function saveChats(chats) {
  const kept = chats.filter((chat) => chat.messages.length).slice(0, MOST);
  while (!write(CHATS, kept) && kept.length > 1) kept.pop();
}

export function newChat() {
  return { id: Date.now().toString(36) + Math.random().toString(36).slice(2, 8), title: "", messages: [] };
}

export function loadSettings() {
  const settings = read(SETTINGS);
  return settings && typeof settings === "object" ? settings : {};
}

export function saveSettings(settings) {
  write(SETTINGS, settings);
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
