// The server's API, as any client would use it. Addresses are relative: the page works behind a prefix.

const NUMBERS = ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "max_tokens", "seed"];

// Model name and context size; nulls when the server does not say (a key is missing, it is loading).
export async function about(settings) {
  const answer = await fetch("props", { headers: headers(settings) });
  if (!answer.ok) throw new Error(await complaint(answer));
  const props = await answer.json();
  const context = props.default_generation_settings?.n_ctx ?? null;
  return { name: props.model_alias || props.model_path?.split("/").pop() || "corral", context };
}

// The pieces of a reply: {content}, {reasoning}, and once {usage, timings, finish}.
export async function* reply(messages, settings, signal) {
  const body = { messages, stream: true, stream_options: { include_usage: true } };
  for (const name of NUMBERS) if (settings[name]) body[name] = Number(settings[name]);
  const answer = await fetch("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(settings) },
    body: JSON.stringify(body),
    signal,
  });
  if (!answer.ok) throw new Error(await complaint(answer));
  for await (const event of events(answer.body)) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices?.[0];
    if (choice?.delta?.reasoning_content) yield { reasoning: choice.delta.reasoning_content };
    if (choice?.delta?.content) yield { content: choice.delta.content };
    if (choice?.finish_reason) yield { finish: choice.finish_reason };
    if (event.usage) yield { usage: event.usage, timings: event.timings };
  }
}

function headers(settings) {
  return settings.key ? { Authorization: "Bearer " + settings.key } : {};
}

async function complaint(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

// The JSON events of a stream of server-sent events.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
  }
}
