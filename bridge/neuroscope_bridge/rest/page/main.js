// The page: what the user does, and what that changes.

import { Refusal, events, get, post, useToken } from "./api.js";
import { Run, shown } from "./run.js";
import * as views from "./views.js";

const $ = (id) => document.getElementById(id);
const runs = { original: null, changed: null };
const selection = { position: 0, row: 0, head: { layer: 0, head: 0 } };
const cursor = { query: 0, key: 0 };
let changes = []; // hooks to send with the changed run, each with a label
let asked = null; // the request that the original run answered, as text
let neuron = null;
let following = true;
let stopping = null;
let drawing = false;

// --- showing -----------------------------------------------------------------------------------------------------

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function viewed() {
  const wanted = document.querySelector("input[name=view]:checked").value;
  return runs[wanted] ? wanted : "original";
}

/** Draw with the next frame; many events become one drawing. */
function redraw() {
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      draw();
    });
  }
}

function draw() {
  const name = viewed();
  const run = runs[name];
  const other = runs[name === "original" ? "changed" : "original"];
  $("empty").hidden = Boolean(run);
  $("changed-column").hidden = !runs.changed;
  $("which").hidden = !run;
  $("runs").hidden = !runs.changed;
  document.querySelector('input[name=view][value="changed"]').disabled = !runs.changed;
  const select = (which) => (at) => {
    following = false;
    if (runs.changed) document.querySelector(`input[name=view][value="${which}"]`).checked = true;
    choose(at);
  };
  views.drawTokens($("tokens-original"), runs.original, name === "original" ? selection.position : -1, select("original"));
  $("probe-panel").hidden = !run?.probe?.scores.length;
  if (run?.probe?.scores.length) {
    $("probe-strip-title").textContent = `Probe for ${run.probe.name}`;
    $("probe-threshold").textContent = (run.probe.threshold ?? 0).toFixed(2);
    views.drawProbe($("probe-strip"), run.tokens, run.probe);
  }
  views.drawTokens($("tokens-changed"), runs.changed, name === "changed" ? selection.position : -1, select("changed"), runs.original);
  differences();
  const ready = Boolean(run && run.positions);
  for (const panel of document.querySelectorAll("[data-panel]")) panel.hidden = !ready;
  if (!ready) return;
  const last = run.positions - 1;
  if (following || selection.position > last) selection.position = last;
  const token = run.tokens[selection.position];
  $("selected").replaceChildren("Selected ", views.element("b", { textContent: shown(token.text) }), ` token ${selection.position} of the ${name} run`);
  const both = Object.entries(runs).filter(([, one]) => one && one.positions > selection.position);
  const cell = views.drawLens($("lens"), run, selection, chooseCell, other);
  const scroll = $("lens-scroll");
  if (following) scroll.scrollLeft = 1e6;
  else if (cell && (cell.offsetLeft < scroll.scrollLeft + 70 || cell.offsetLeft + cell.offsetWidth > scroll.scrollLeft + scroll.clientWidth)) {
    scroll.scrollLeft = cell.offsetLeft - scroll.clientWidth / 2;
  }
  if (document.activeElement?.closest?.("#lens")) cell?.focus();
  views.drawDetail($("lens-detail"), both, selection);
  const cut = new Set(name === "changed" ? changes.filter((one) => one.hook.head !== undefined && one.hook.action === "ablate").map((one) => `${one.hook.layer_name}.${one.hook.head}`) : []);
  views.drawHeads($("heads"), run, selection, chooseHead, cut);
  $("head-title").textContent = `Head ${selection.head.head} of layer ${selection.head.layer}`;
  cursor.query = Math.min(cursor.query, last);
  cursor.key = Math.min(cursor.key, cursor.query);
  const told = views.drawPattern($("pattern"), run, selection, cursor);
  $("pattern-cell").textContent = told;
  $("pattern").ariaLabel = `Attention of head ${selection.head.head} of layer ${selection.head.layer}. Arrow keys move. ${told}`;
  views.drawNorms($("norms"), $("norms-legend"), both, selection);
  $("neuron-layer").max = run.layers - 1;
  const layer = Math.min(Number($("neuron-layer").value) || 0, run.layers - 1);
  views.drawNeurons($("neurons"), run, selection, layer, neuron, chooseNeuron);
}

function differences() {
  const { original, changed } = runs;
  if (!original || !changed) return ($("differs").textContent = "");
  const made = changed.tokens.slice(changed.promptLength);
  const differing = made.filter((token, at) => original.tokens[changed.promptLength + at]?.id !== token.id).length;
  $("differs").textContent = made.length ? `${differing} of ${made.length} tokens differ` : "";
}

// --- choosing ----------------------------------------------------------------------------------------------------

function choose(position, row = selection.row) {
  const run = runs[viewed()];
  if (!run?.positions) return;
  selection.position = Math.max(0, Math.min(position, run.positions - 1));
  selection.row = Math.max(0, Math.min(row, run.layers));
  cursor.query = selection.position;
  cursor.key = run.look(selection.head.layer, selection.head.head, cursor.query).key;
  redraw();
}

function chooseCell(position, row) {
  following = false;
  if (row > 0) $("neuron-layer").value = row - 1;
  choose(position, row);
}

function chooseHead(layer, head) {
  selection.head = { layer, head };
  const run = runs[viewed()];
  cursor.query = selection.position;
  cursor.key = run.look(layer, head, cursor.query).key;
  redraw();
}

async function chooseNeuron(layer, unit) {
  neuron = { layer, unit };
  redraw();
  const name = viewed();
  const run = runs[name];
  $("neuron").hidden = false;
  $("neuron-title").textContent = `Neuron ${unit} of layer ${layer}, at every token`;
  const hooks = [{ layer_name: String(layer), component: "mlp", neuron: unit, hook_id: "neuron" }];
  if (name === "changed") hooks.push(...changes.map((one) => one.hook));
  try {
    const prompt = run.tokens.slice(0, run.positions).map((token) => token.id);
    const answer = await post("/v1/chat/completions/with_activations", { model: run.model, prompt, max_tokens: 1, temperature: 0, activation_hooks: hooks });
    views.drawStrip($("neuron-tokens"), run.tokens, answer.activations.neuron.data);
  } catch (error) {
    failed(error);
  }
}

function move(event, moves) {
  const step = moves[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  step();
}

for (const which of ["original", "changed"]) {
  $(`tokens-${which}`).addEventListener("keydown", (event) => {
    const go = (at) => () => {
      following = false;
      choose(at);
      requestAnimationFrame(() => $(`tokens-${which}`).querySelector('[aria-pressed="true"]')?.focus());
    };
    move(event, { ArrowRight: go(selection.position + 1), ArrowLeft: go(selection.position - 1), Home: go(0), End: go(1e9) });
  });
}

$("lens").addEventListener("keydown", (event) =>
  move(event, {
    ArrowRight: () => chooseCell(selection.position + 1, selection.row),
    ArrowLeft: () => chooseCell(selection.position - 1, selection.row),
    ArrowUp: () => chooseCell(selection.position, selection.row + 1),
    ArrowDown: () => chooseCell(selection.position, selection.row - 1),
  }),
);

$("heads").addEventListener("keydown", (event) => {
  const run = runs[viewed()];
  const go = (layers, heads) => () => {
    const { layer, head } = selection.head;
    chooseHead(Math.max(0, Math.min(layer + layers, run.layers - 1)), Math.max(0, Math.min(head + heads, run.heads - 1)));
    requestAnimationFrame(() => $("heads").querySelector('[aria-selected="true"]')?.focus());
  };
  move(event, { ArrowUp: go(1, 0), ArrowDown: go(-1, 0), ArrowLeft: go(0, -1), ArrowRight: go(0, 1) });
});

$("pattern").addEventListener("keydown", (event) => {
  const last = runs[viewed()].positions - 1;
  const go = (queries, keys) => () => {
    cursor.query = Math.max(0, Math.min(cursor.query + queries, last));
    cursor.key = Math.max(0, Math.min(cursor.key + keys, cursor.query));
    redraw();
  };
  move(event, { ArrowUp: go(-1, 0), ArrowDown: go(1, 0), ArrowLeft: go(0, -1), ArrowRight: go(0, 1) });
});

$("pattern").addEventListener("pointermove", (event) => {
  const { size, labels, count } = $("pattern").layout;
  const key = Math.floor((event.offsetX - labels) / size);
  const query = Math.floor(event.offsetY / size);
  if (key < 0 || key > query || query >= count || (key === cursor.key && query === cursor.query)) return;
  Object.assign(cursor, { query, key });
  redraw();
});

// --- changes -----------------------------------------------------------------------------------------------------

function add(hook, label) {
  if (changes.some((one) => one.label === label)) return say(`${label} is among the changes already.`);
  changes.push({ hook: { ...hook, hook_id: label }, label });
  changed();
  say(`${label}: press Run to see what it does.`);
}

function changed() {
  $("no-changes").hidden = changes.length > 0;
  $("run").textContent = changes.length ? "Run both" : "Run";
  $("changes").replaceChildren(
    ...changes.map((one) =>
      views.element(
        "li",
        {},
        views.element("span", { textContent: one.label }),
        views.element("button", {
          type: "button",
          textContent: "×",
          ariaLabel: `Remove ${one.label}`,
          onclick: () => {
            changes = changes.filter((other) => other !== one);
            if (!changes.length) runs.changed = null;
            changed();
            redraw();
          },
        }),
      ),
    ),
  );
}

const head = () => ({ layer_name: String(selection.head.layer), component: "headOutput", head: selection.head.head });
const named = () => `head ${selection.head.layer}.${selection.head.head}`;
$("ablate-head").onclick = () => add({ ...head(), action: "ablate" }, `ablate ${named()}`);
$("double-head").onclick = () => add({ ...head(), action: "scale", factor: 2 }, `double ${named()}`);
$("ablate-neuron").onclick = () =>
  add({ layer_name: String(neuron.layer), component: "mlp", neuron: neuron.unit, action: "ablate" }, `ablate neuron ${neuron.layer}.${neuron.unit}`);

const lines = (id) => $(id).value.split("\n").map((line) => line.trim()).filter(Boolean);

async function probes(chosen) {
  const mine = (await get("/v1/probes")).data.map((one) => one.name);
  const option = (value, textContent) => views.element("option", { value, textContent });
  $("probe").replaceChildren(option("", "no probe"), ...mine.map((name) => option(name, name)));
  $("probe").value = mine.includes(chosen) ? chosen : "";
}

$("train").onsubmit = async (event) => {
  event.preventDefault();
  const name = $("probe-name").value.trim();
  const button = $("train").querySelector("button");
  button.disabled = true;
  say(`Training the probe ${name}…`);
  try {
    const how = { layer: Number($("probe-layer").value), reading: $("probe-reading").value };
    await post("/v1/probes", { model: $("model").value || undefined, name, positive: lines("positive"), negative: lines("negative"), ...how });
    await probes(name);
    say(`The probe ${name} is trained: press Run to score every token.`);
  } catch (error) {
    failed(error);
  }
  button.disabled = false;
};

$("steer").onsubmit = (event) => {
  event.preventDefault();
  const [more, less] = [lines("more"), lines("less")];
  if (!more.length || more.length !== less.length) return say("Give as many lines in “more like” as in “less like”.", true);
  const [layer, strength] = [Number($("steer-layer").value), Number($("strength").value)];
  const label = `steer layer ${layer} × ${strength}: ${more[0].slice(0, 22)}${more[0].length > 22 ? "…" : ""}`;
  add({ layer_name: String(layer), action: "steer", strength, contrast: { more, less } }, label);
};

// --- running -----------------------------------------------------------------------------------------------------

function request() {
  const text = $("prompt").value;
  const chat = document.querySelector("input[name=mode]:checked").value === "chat";
  return {
    model: $("model").value || undefined,
    ...(chat ? { messages: [{ role: "user", content: text }] } : { prompt: text }),
    max_tokens: Number($("max-tokens").value),
    temperature: Number($("temperature").value),
    seed: Number($("seed").value),
    ...($("probe").value ? { probe: $("probe").value } : {}),
  };
}

async function generate(which, body, signal) {
  let count = 0;
  const start = performance.now();
  runs[which] = null;
  for await (const event of events("/v1/lens", body, signal)) {
    if (!runs[which]) {
      runs[which] = new Run(event);
      selection.row = Math.min(selection.row || runs[which].layers, runs[which].layers);
      document.querySelector(`input[name=view][value="${which}"]`).checked = true;
    } else {
      runs[which].take(event);
      count += 1;
      const seconds = (performance.now() - start) / 1000;
      say(`${which}: ${count} tokens, ${(count / seconds).toFixed(1)} a second`);
    }
    redraw();
  }
}

$("ask").onsubmit = async (event) => {
  event.preventDefault();
  if (stopping) return;
  stopping = new AbortController();
  $("run").disabled = true;
  $("stop").disabled = false;
  following = true;
  neuron = null;
  $("neuron").hidden = true;
  const body = request();
  try {
    if (!runs.original || asked !== JSON.stringify(body)) {
      runs.changed = null;
      asked = null;
      await generate("original", body, stopping.signal);
      asked = JSON.stringify(body);
    }
    if (changes.length) await generate("changed", { ...body, hooks: changes.map((one) => one.hook) }, stopping.signal);
    else runs.changed = null;
  } catch (error) {
    failed(error);
  }
  stopping = null;
  $("run").disabled = false;
  $("stop").disabled = true;
  // Where the first new token was chosen there is most to see, unless the user looks elsewhere.
  if (following) choose(runs[viewed()]?.promptLength - 1);
  following = false;
  redraw();
};

$("stop").onclick = () => stopping?.abort();

function failed(error) {
  if (error.name === "AbortError") return say("Stopped.");
  if (error instanceof Refusal && error.status === 401) return $("token-dialog").showModal();
  say(error.message, true);
  if (!(error instanceof Refusal)) throw error;
}

for (const one of document.querySelectorAll("input[name=view]")) one.onchange = redraw;
$("neuron-layer").oninput = redraw;
window.addEventListener("resize", redraw);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  else if (event.key === "Escape") stopping?.abort();
  else if (event.key === "t" && !event.target.closest("input, textarea, select, dialog")) theme();
});

$("lens-scroll").addEventListener("scroll", (event) => event.target.classList.toggle("moved", event.target.scrollLeft > 4));

// --- the model and the page ----------------------------------------------------------------------------------------

async function models(chosen) {
  const names = (await get("/v1/models")).data.map((one) => one.id);
  $("model").replaceChildren(...names.map((name) => views.element("option", { value: name, textContent: name })));
  if (!names.length) return say("No model is loaded yet: press Load…");
  $("model").value = chosen ?? (await get("/health")).model ?? names[0];
  await describe();
}

async function describe() {
  const model = await get(`/v1/models/${$("model").value.split("/").map(encodeURIComponent).join("/")}`);
  const { layers, heads } = model.architecture;
  const facts = [`${layers} layers × ${heads} heads`, ...(model.context ? [`${model.context} tokens`] : []), ...(model.stand_in ? [`${model.stand_in} stands in`] : [])];
  $("model-facts").textContent = facts.join(", ");
  $("max-tokens").max = model.context ? Math.min(model.context, 256) : 256;
  $("steer-layer").max = layers - 1;
  $("steer-layer").value = Math.floor(layers / 3);
  $("probe-layer").max = layers - 1;
  $("probe-layer").value = Math.floor(layers / 2);
  await probes($("probe").value);
  const chat = document.querySelector("input[name=mode][value=chat]");
  chat.disabled = !model.tokenizer.chat_template;
  if (chat.disabled) document.querySelector("input[name=mode][value=text]").checked = true;
  chat.parentElement.title = chat.disabled ? "This model has no chat template." : "In the model's own chat template";
  Object.assign(selection, { position: 0, row: layers, head: { layer: Math.floor(layers / 2), head: 0 } });
  $("neuron-layer").value = Math.floor(layers / 2);
}

$("model").onchange = async () => {
  runs.original = runs.changed = asked = null;
  changes = [];
  changed();
  await describe().catch(failed);
  redraw();
};

$("load").onclick = () => {
  $("load-error").textContent = "";
  $("load-dialog").showModal();
};
$("load-go").onclick = async (event) => {
  event.preventDefault();
  const name = $("load-name").value.trim();
  if (!name) return;
  $("load-go").disabled = true;
  $("load-error").textContent = "Loading…";
  try {
    await post("/v1/models/load", { model: name });
    await models(name);
    $("load-dialog").close();
    $("model").onchange();
  } catch (error) {
    $("load-error").textContent = error.message;
  }
  $("load-go").disabled = false;
};

$("token-dialog").onclose = () => {
  useToken($("token").value);
  models().catch(failed);
};

function theme(wanted) {
  const now = wanted ?? (document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  document.documentElement.dataset.theme = now;
  if (!wanted) localStorage.setItem("neuroscope-theme", now);
  redraw();
}
$("theme").onclick = () => theme();
const dark = window.matchMedia("(prefers-color-scheme: dark)");
theme(localStorage.getItem("neuroscope-theme") ?? (dark.matches ? "dark" : "light"));
dark.onchange = () => localStorage.getItem("neuroscope-theme") ?? theme(dark.matches ? "dark" : "light");

changed();
models().catch(failed);
