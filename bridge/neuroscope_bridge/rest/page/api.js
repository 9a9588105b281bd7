// Talking with the server: JSON requests, and server-sent events over fetch.

let token = sessionStorage.getItem("neuroscope-token");

/** What the server answered instead of what was asked for. */
export class Refusal extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server responded with ${status}.`);
    this.status = status;
  }
}

export function useToken(given) {
  token = given;
  sessionStorage.setItem("neuroscope-token", given);
}

async function request(method, path, body, signal) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { message: "The server does not answer. Is `neuroscope serve` still running?" });
  }
  if (!answer.ok) {
    const document = await answer.json().catch(() => null);
    throw new Refusal(answer.status, document?.error);
  }
  return answer;
}

export const get = async (path) => (await request("GET", path)).json();
export const post = async (path, body, signal) => (await request("POST", path, body, signal)).json();

/** The events of a stream, each as an object, as they arrive. */
export async function* events(path, body, signal) {
  const answer = await request("POST", path, { ...body, stream: true }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const data = rest.slice(0, end).replace(/^data: /, "");
      rest = rest.slice(end + 2);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refusal(200, event.error);
      yield event;
    }
  }
}
