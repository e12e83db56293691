// The server's API, as any client would use it. Addresses are relative: the page works behind a prefix.

const NUMBERS = ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "max_tokens", "seed"];

export class ApiError extends Error {
  // `status` is 0 where there was no answer at all
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// The model's name, the tokens it can see, and the server's own values of the settings.
export async function about(settings) {
  const props = await (await ask("props", { headers: headers(settings) })).json();
  const own = props.default_generation_settings ?? {};
  return {
    name: props.model_alias || props.model_path?.split("/").pop() || "corral",
    context: own.n_ctx ?? null,
    defaults: own.params ?? {},
  };
}

// The pieces of a reply: {content}, {reasoning}, {finish}, and once {usage, timings}.
export async function* reply(messages, settings, signal) {
  const body = { messages, stream: true, stream_options: { include_usage: true } };
  for (const name of NUMBERS) if (settings[name]) body[name] = Number(settings[name]);
  if (settings.reasoning) body.enable_thinking = settings.reasoning === "on";
  const answer = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(settings) },
    body: JSON.stringify(body),
    signal,
  });
  let finished = false;
  for await (const event of events(answer.body)) {
    if (event.error) throw new ApiError(answer.status, event.error.message);
    const choice = event.choices?.[0];
    if (choice?.delta?.reasoning_content) yield { reasoning: choice.delta.reasoning_content };
    if (choice?.delta?.content) yield { content: choice.delta.content };
    if (choice?.finish_reason) {
      finished = true;
      yield { finish: choice.finish_reason };
    }
    if (event.usage) yield { usage: event.usage, timings: event.timings };
  }
  if (!finished) throw new ApiError(0, "The connection broke before the answer was complete.");
}

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  if (!answer.ok) throw new ApiError(answer.status, await complaint(answer));
  return answer;
}

function headers(settings) {
  return settings.key ? { Authorization: "Bearer " + settings.key } : {};
}

async function complaint(answer) {
  try {
    return JSON.parse(await answer.text()).error.message;
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

// The JSON events of a stream of server-sent events.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
  }
}
