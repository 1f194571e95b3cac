// The platform behind the channel: its node, pods, money and clock, what people do outside Slack, and what can be broken.
import { el } from "/page/blocks.js";
import { $, post } from "/page/state.js";

const SPEEDS = [1, 10, 30, 60, 120, 300];
const EVERY = 1000;

export async function drawPanel() {
  try {
    const text = await (await fetch("/cluster.json")).text();
    const choosing = document.activeElement?.matches("#cluster select"); // drawn anew, an open list would close
    if ($("cluster").dataset.shown !== text && !choosing) {
      $("cluster").dataset.shown = text;
      draw(JSON.parse(text));
    }
  } catch { /* the stream says that the sandbox does not answer */ }
  setTimeout(drawPanel, EVERY);
}

function draw(shown) {
  const panel = $("cluster");
  const focused = document.activeElement?.closest("#cluster") && document.activeElement.dataset.key;
  const top = panel.scrollTop;
  const open = panel.querySelector("details")?.open;
  panel.replaceChildren(...sections(shown, open).filter(Boolean));
  panel.scrollTop = top;
  if (focused) [...panel.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focused)?.focus({ preventScroll: true });
}

function sections({ node, node_state: state, holder, price, billed_seconds: billed, cost_usd: cost, pods = [], models = [], pulls = [], stopped = [], speed, shared, faults, actions }, open) {
  const press = (name) => el("button", { type: "button", "data-key": `action ${name}`, onclick: () => post(`/actions/${encodeURIComponent(name)}`, "") }, name);
  return [
    el("h2", {}, "Behind the channel"),
    speed === undefined ? null : el("section", { className: `gpu ${node ? (holder ? "hot" : "warm") : holder ? "warm" : "cold"}` },
      el("p", { className: "light" }, el("strong", {}, "GPU node"), el("span", {}, state)),
      el("p", { className: "money" }, `$${cost.toFixed(2)}`, el("small", {}, ` billed for ${minutes(billed)} at $${price.toFixed(2)}/h`)),
      el("p", {}, holder ? el("small", {}, "held by ", el("code", {}, holder)) : el("small", {}, "no pod on the GPU"))),
    speed === undefined || shared ? null : el("label", { className: "clock" }, "Clock ",
      el("select", { "data-key": "speed", "aria-label": "Speed of the platform's clock", onchange: (event) => { post("/speed", event.target.value); event.target.blur(); } },
        [...new Set([...SPEEDS, speed])].sort((a, b) => a - b).map((each) => el("option", { value: each, selected: each === speed }, each === 1 ? "as in life" : `${each}× faster`)))),
    speed === undefined ? null : el("p", { className: "hint" }, shared
      ? `One clock for everything, ${speed}× faster than real time: two hours pass in ${minutes(Math.round(7200 / speed))}.`
      : "Stoker counts real seconds: its times and receipts are that much smaller."),
    el("h3", {}, "GPU models"),
    models.length ? el("ul", { className: "models" }, models.map(({ name, replicas }) => el("li", {},
      el("code", {}, name), el("small", {}, pods.filter((pod) => pod.name.startsWith(`${name}-`)).map((pod) => pod.phase).join(", ") || "no pod"),
      el("button", {
        type: "button", "data-key": `scale ${name}`, title: "Somebody works around the bot",
        onclick: () => post("/scale", JSON.stringify({ name, replicas: replicas ? 0 : 1 })),
      }, `kubectl scale ${replicas ? 0 : 1}`)))) : el("p", { className: "hint" }, "none"),
    el("h3", {}, "Pull requests"),
    pulls.length ? el("ul", {}, pulls.map((pull) => el("li", {},
      el("a", { href: /^https?:/.test(pull.url) ? pull.url : "#", target: "_blank", rel: "noopener", "data-key": `pull ${pull.number}` }, `#${pull.number} ${pull.title}`),
      el("small", {}, `${pull.state} · checks: ${pull.checks}`)))) : el("p", { className: "hint" }, "none yet: try /model add"),
    actions.length ? el("h3", {}, "From outside") : null,
    actions.length ? el("div", { className: "actions" }, actions.map(press)) : null,
    stopped.length ? el("p", { className: "error", role: "status" }, `${stopped.join(", ")} is stopped.`) : null,
    el("details", { open: open ?? false }, el("summary", { "data-key": "break" }, el("h3", {}, "Break something"), brokenCount(faults)),
      faults.map((fault) => el("label", { className: "choice" },
        el("input", { type: "checkbox", "data-key": `fault ${fault.name}`, checked: fault.on, onchange: (event) => post(`/faults/${fault.name}`, event.target.checked ? "on" : "off") }),
        el("span", {}, el("code", {}, fault.name), el("small", {}, fault.what))))),
  ];
}

function brokenCount(faults) {
  const on = faults.filter((fault) => fault.on).length;
  return on ? el("b", { className: "unread" }, String(on)) : null;
}

const minutes = (seconds) => (seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);

$("show-cluster").addEventListener("click", (event) => {
  const open = document.body.classList.toggle("cluster-open");
  event.currentTarget.setAttribute("aria-expanded", String(open));
});
