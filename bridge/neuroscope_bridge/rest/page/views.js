// Drawing: each function fills one panel from a run and a selection.

import { shown } from "./run.js";

const SVG = "http://www.w3.org/2000/svg";

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") for (const [key, one] of Object.entries(value)) made.style.setProperty(key, one);
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const percent = (p) => (p >= 0.9995 ? "100%" : p >= 0.0995 ? `${(p * 100).toFixed(0)}%` : `${(p * 100).toFixed(1)}%`);

/** Tokens of a run as buttons; appends what is new. */
export function drawTokens(list, run, selected, choose, other) {
  if (!run) return list.replaceChildren();
  if (list.run !== run) list.replaceChildren();
  list.run = run;
  for (let at = list.children.length; at < run.tokens.length; at++) {
    const token = run.tokens[at];
    const button = element("button", {
      type: "button",
      className: `token ${token.prompt ? "prompt" : "fresh"}`,
      textContent: shown(token.text),
      title: token.prompt ? `token ${at}` : `token ${at}: ${percent(token.p)}`,
      style: { "--p": token.p ?? 0 },
      onclick: () => choose(at),
    });
    list.append(element("li", {}, button));
  }
  run.tokens.forEach((token, at) => {
    const button = list.children[at].firstChild;
    button.setAttribute("aria-pressed", at === selected);
    button.tabIndex = at === selected ? 0 : -1;
    button.classList.toggle("other", Boolean(other && !token.prompt && other.tokens[at]?.id !== token.id));
  });
}

/** The logit lens: layers upwards, tokens to the right. Appends columns as they come. */
export function drawLens(grid, run, selection, choose, other) {
  const depth = run.layers + 1;
  if (grid.run !== run || grid.other !== other) {
    grid.replaceChildren(element("div", { className: "side" }));
    grid.run = run;
    grid.other = other;
    grid.done = 0;
    grid.cells = [];
    grid.heads = [];
    grid.style.gridTemplateRows = `repeat(${depth + 1}, auto)`;
    for (let row = depth - 1; row >= 0; row--) {
      grid.append(element("div", { className: "side", role: "rowheader", textContent: row === 0 ? "input" : `L${row - 1}` }));
    }
  }
  for (; grid.done < run.positions; grid.done++) {
    const position = grid.done;
    const head = element("div", { className: "head", role: "columnheader", textContent: shown(run.tokens[position].text) });
    grid.append(head);
    grid.heads.push(head);
    grid.cells[position] = [];
    for (let row = depth - 1; row >= 0; row--) {
      const [text, p] = run.lens[position][row][0];
      const before = other?.lens[position]?.[row][0][0];
      const cell = element("div", {
        className: `cell${p > 0.72 ? " strong" : ""}${before !== undefined && before !== text ? " other" : ""}`,
        role: "gridcell",
        textContent: shown(text),
        title: `${row === 0 ? "input" : `after layer ${row - 1}`}: ${shown(text)} ${percent(p)}`,
        style: { "--p": p },
        onclick: () => choose(position, row),
      });
      grid.append(cell);
      grid.cells[position][row] = cell;
    }
  }
  grid.selected?.setAttribute("aria-selected", "false");
  if (grid.selected) grid.selected.tabIndex = -1;
  grid.heads.forEach((head, at) => head.classList.toggle("at", at === selection.position));
  const cell = grid.cells[selection.position]?.[selection.row];
  if (cell) {
    cell.setAttribute("aria-selected", "true");
    cell.tabIndex = 0;
  }
  grid.selected = cell;
  return cell;
}

/** The likeliest next tokens at the selected layer and token, of each run. `named` is [[name, run], …]. */
export function drawDetail(box, named, selection) {
  const place = selection.row === 0 ? "before the first layer" : `after layer ${selection.row - 1}`;
  const parts = named.map(([name, run]) =>
    element(
      "div",
      {},
      element("p", { textContent: `${name}, ${place}` }),
      ...run.lens[selection.position][selection.row].map(([text, p]) =>
        element(
          "div",
          { className: "bar-line", style: { "--p": p, "--bar": `var(--${name})` } },
          element("span", { textContent: shown(text) }),
          element("i", { ariaHidden: "true" }),
          element("span", { textContent: percent(p) }),
        ),
      ),
    ),
  );
  box.replaceChildren(...parts);
}

/** Every head as a cell: how strongly it looks away from the first token at the selected token. */
export function drawHeads(grid, run, selection, choose, cut) {
  if (grid.run !== run) {
    grid.run = run;
    grid.style.gridTemplateColumns = `auto repeat(${run.heads}, minmax(1.4rem, 3.4rem))`;
    const cells = [element("span", { className: "top" })];
    for (let head = 0; head < run.heads; head++) cells.push(element("span", { className: "top", textContent: head }));
    grid.cells = [];
    for (let layer = run.layers - 1; layer >= 0; layer--) {
      cells.push(element("span", { className: "side", textContent: `L${layer}` }));
      grid.cells[layer] = [];
      for (let head = 0; head < run.heads; head++) {
        const cell = element("button", { type: "button", role: "gridcell", tabIndex: -1, onclick: () => choose(layer, head) });
        grid.cells[layer][head] = cell;
        cells.push(cell);
      }
    }
    grid.replaceChildren(...cells);
  }
  for (let layer = 0; layer < run.layers; layer++) {
    for (let head = 0; head < run.heads; head++) {
      const cell = grid.cells[layer][head];
      const best = run.look(layer, head, selection.position);
      const here = layer === selection.head.layer && head === selection.head.head;
      cell.style.setProperty("--p", best.weight);
      const gone = cut.has(`${layer}.${head}`);
      cell.classList.toggle("cut", gone);
      const label = `Layer ${layer}, head ${head}: ${percent(best.weight)} on ${shown(run.tokens[best.key].text)}${gone ? ", ablated" : ""}`;
      cell.title = label;
      cell.ariaLabel = label;
      cell.setAttribute("aria-selected", here);
      cell.tabIndex = here ? 0 : -1;
    }
  }
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** One head's attention: queries downwards, keys to the right. */
export function drawPattern(canvas, run, selection, cursor) {
  const { layer, head } = selection.head;
  const count = run.positions;
  const labels = 78;
  const room = Math.max(180, canvas.parentElement.clientWidth - labels - 16);
  const size = Math.max(7, Math.min(26, Math.floor(room / count)));
  const side = size * count;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = (side + labels) * ratio;
  canvas.height = (side + labels) * ratio;
  canvas.style.width = `${side + labels}px`;
  canvas.style.height = `${side + labels}px`;
  canvas.layout = { size, labels, count };
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const [empty, heat, soft, accent] = ["--cell", "--heat", "--soft", "--accent"].map(colour);
  for (let query = 0; query < count; query++) {
    const row = run.row(layer, head, query);
    row.forEach((weight, key) => {
      pen.globalAlpha = 1;
      pen.fillStyle = empty;
      pen.fillRect(labels + key * size, query * size, size - 1, size - 1);
      pen.globalAlpha = weight;
      pen.fillStyle = heat;
      pen.fillRect(labels + key * size, query * size, size - 1, size - 1);
    });
  }
  pen.globalAlpha = 1;
  pen.font = `${Math.min(11, size)}px ui-monospace, "DejaVu Sans Mono", monospace`;
  pen.textBaseline = "middle";
  const name = (at) => shown(run.tokens[at].text).slice(0, 10);
  for (let at = 0; at < count; at++) {
    pen.fillStyle = at === cursor.query ? accent : soft;
    pen.textAlign = "right";
    pen.fillText(name(at), labels - 6, at * size + size / 2);
    pen.fillStyle = at === cursor.key ? accent : soft;
    pen.save();
    pen.translate(labels + at * size + size / 2, side + 6);
    pen.rotate(-Math.PI / 2);
    pen.fillText(name(at), 0, 0);
    pen.restore();
  }
  pen.strokeStyle = accent;
  pen.lineWidth = 2;
  pen.strokeRect(labels + cursor.key * size - 0.5, cursor.query * size - 0.5, size, size);
  const weight = run.row(layer, head, cursor.query)[cursor.key] ?? 0;
  return `${shown(run.tokens[cursor.query].text)} → ${shown(run.tokens[cursor.key].text)}  ${percent(weight)}`;
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The residual stream's norm by layer at the selected token, of each run, and its mean over the first one's tokens. */
export function drawNorms(box, legend, named, selection) {
  const width = box.clientWidth || 560, height = 250, left = 46, right = 12, top = 12, bottom = 30;
  const run = named[0][1];
  const here = run.norms[selection.position];
  const mean = here.map((_, at) => run.norms.reduce((sum, row) => sum + row[at], 0) / run.norms.length);
  const lines = [
    { name: "mean of all tokens", values: mean, colour: "var(--faint)", dash: "2 4" },
    ...named.map(([name, one]) => ({
      name,
      values: one.norms[selection.position],
      colour: `var(--${name})`,
      dash: name === "changed" ? "6 3" : "none",
    })),
  ];
  const most = Math.max(...lines.flatMap((line) => line.values)) * 1.05 || 1;
  const x = (at) => left + (at / (here.length - 1)) * (width - left - right);
  const y = (value) => height - bottom - (value / most) * (height - top - bottom);
  const parts = [];
  const step = 10 ** Math.floor(Math.log10(most / 2));
  const tick = [1, 2, 5, 10].map((k) => k * step).find((k) => most / k <= 5);
  for (let value = 0; value <= most; value += tick) {
    parts.push(svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: "var(--line)" }));
    parts.push(svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, String(Number(value.toPrecision(6)))));
  }
  const every = Math.ceil(here.length / 16);
  here.forEach((_, at) => {
    if (at % every === 0) parts.push(svg("text", { x: x(at), y: height - 10, "text-anchor": "middle" }, at === 0 ? "in" : `${at - 1}`));
  });
  for (const line of lines) {
    const points = line.values.map((value, at) => `${x(at)},${y(value)}`).join(" ");
    parts.push(svg("polyline", { points, fill: "none", stroke: line.colour, "stroke-width": 2.2, "stroke-dasharray": line.dash, "stroke-linejoin": "round" }));
    if (line.dash !== "2 4") {
      line.values.forEach((value, at) => {
        const spot = svg("circle", { cx: x(at), cy: y(value), r: at === selection.row ? 5 : 2.6, fill: line.colour });
        spot.append(svg("title", {}, `${at === 0 ? "input" : `after layer ${at - 1}`}: ${value.toFixed(1)} (${line.name})`));
        parts.push(spot);
      });
    }
  }
  const label = `Norm by layer at ${shown(run.tokens[selection.position].text)}: from ${here[0].toFixed(1)} to ${here.at(-1).toFixed(1)}`;
  box.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...parts));
  legend.replaceChildren(
    ...lines.map((line) => element("span", { className: "key" }, element("i", { style: { background: line.colour } }), line.name)),
  );
}

/** The strongest neurons of a layer at the selected token. */
export function drawNeurons(list, run, selection, layer, chosen, choose) {
  const units = run.neurons[selection.position][layer];
  const most = Math.max(...units.map(([, value]) => Math.abs(value))) || 1;
  list.replaceChildren(
    ...units.map(([unit, value]) =>
      element(
        "li",
        {},
        element(
          "button",
          {
            type: "button",
            onclick: () => choose(layer, unit),
            ariaLabel: `Layer ${layer}, neuron ${unit}: activation ${value}`,
            ariaPressed: String(chosen?.layer === layer && chosen?.unit === unit),
          },
          element("span", { textContent: `${layer}.${unit}` }),
          element("i", { className: value < 0 ? "minus" : "", style: { "--v": Math.abs(value) / most } }),
          element("span", { textContent: value.toFixed(2) }),
        ),
      ),
    ),
  );
}

/** One neuron's activation at every token. */
export function drawStrip(box, tokens, values) {
  const most = Math.max(...values.map(Math.abs)) || 1;
  box.replaceChildren(
    ...values.map((value, at) =>
      element("span", {
        textContent: shown(tokens[at].text),
        title: value.toFixed(3),
        style: { "--p": Math.max(value, 0) / most, "--q": Math.max(-value, 0) / most },
      }),
    ),
  );
}

/** A probe's score at every token, from its threshold: coloured where it is read, grey elsewhere. */
export function drawProbe(box, tokens, probe) {
  const from = probe.threshold ?? 0;
  const read = probe.scores.map((score, at) => (probe.read[at] ? score - from : 0));
  const most = Math.max(...read.map(Math.abs)) || 1;
  box.replaceChildren(
    ...read.map((value, at) =>
      element("span", {
        role: "listitem",
        className: probe.read[at] ? (value > 0 ? "read over" : "read") : "unread",
        textContent: shown(tokens[at].text),
        title: probe.read[at] ? `${probe.scores[at].toFixed(3)}, threshold ${from.toFixed(3)}` : "not read here",
        style: { "--p": Math.max(value, 0) / most, "--q": Math.max(-value, 0) / most },
      }),
    ),
  );
}
