// What the page knows: who looks at it, where they look, and the last snapshot that the workspace sent.

export const page = {
  me: new URLSearchParams(location.search).get("user") ?? sessionStorage.me ?? "U0DEV",
  place: "channel", // channel | direct | home
  thread: null, // the ts of the message whose thread is open
  snap: null,
};

/** The current time of the platform, whose clock may run faster than this machine's. */
export const now = () => {
  const { now: then, speed, seen } = page.snap ?? {};
  return new Date(then === undefined ? Date.now() : then * 1000 + (Date.now() - seen) * speed);
};

export const $ = (id) => document.getElementById(id);

export const say = (text) => { $("connection").textContent = text; };

/** What its user does goes to the workspace; what came of it comes with the next snapshot. */
export async function post(path, body) {
  const response = await fetch(path, { method: "POST", body: typeof body === "string" ? body : JSON.stringify({ user: page.me, ...body }) });
  if (!response.ok) say(await response.text());
  return response;
}

export const isReply = (message) => message.thread_ts && message.thread_ts !== message.ts;
export const channelOf = (place) => (place === "channel" ? page.snap.channel.id : page.snap.direct);
export const inPlace = (place) => page.snap.messages.filter((message) => message.channel === channelOf(place) && !isReply(message));
export const inThread = (ts) => page.snap.messages.filter((message) => message.ts === ts || message.thread_ts === ts);
