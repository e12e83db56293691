// The nodes of messages: made once, an answer's brought up to date while it comes.
import { copy } from "./clipboard.js";
import { element, showMarkdown } from "./markdown.js";

// `actions`: [label, function] for the row below.
export function userNode(message, actions) {
  const text = element("div", message.content);
  text.className = "bubble";
  const node = element("article", text, tools(message, actions));
  node.className = "user";
  node.setAttribute("aria-label", "You");
  return node;
}

export function answerNode(message, actions, busy) {
  const thoughts = element("details", element("summary"), element("div"));
  thoughts.className = "reasoning";
  const text = element("div");
  text.className = "text";
  const problem = element("p");
  problem.className = "problem";
  const node = element("article", thoughts, text, problem, tools(message, actions));
  node.className = "assistant";
  node.setAttribute("aria-label", "Answer");
  updateAnswer(node, message, busy);
  return node;
}

// Only what has changed is touched: what a reader has opened or selected stays so.
export function updateAnswer(node, message, busy) {
  const [thoughts, text, problem, row] = node.children;
  const thinking = busy && message.reasoning && !message.content;
  thoughts.hidden = !message.reasoning;
  thoughts.classList.toggle("busy", Boolean(thinking));
  thoughts.firstChild.textContent = thinking ? "Thinking…" : thoughtFor(message.thought);
  showMarkdown(thoughts.lastChild, message.reasoning ?? "");
  showMarkdown(text, message.content);
  text.classList.toggle("waiting", Boolean(busy && !thinking));
  const trouble = message.error ?? message.note ?? "";
  problem.hidden = !trouble;
  problem.classList.toggle("error", Boolean(message.error));
  if (problem.textContent !== trouble) problem.textContent = trouble;
  row.hidden = Boolean(busy);
  row.firstChild.hidden = !message.content; // Copy
  row.lastChild.textContent = message.stats ?? "";
  node.setAttribute("aria-busy", String(Boolean(busy)));
}

function thoughtFor(seconds) {
  return seconds === undefined ? "Thoughts" : `Thought for ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

function tools(message, actions) {
  const buttons = [["Copy", (event) => copy(message.content, event.currentTarget)], ...actions].map(([label, action]) => {
    const button = element("button", label);
    button.type = "button";
    button.addEventListener("click", action);
    return button;
  });
  const row = element("div", ...buttons, element("span"));
  row.className = "tools";
  return row;
}
