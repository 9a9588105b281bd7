// One generation as it comes: its tokens, and what the model held at each of them.

const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

export class Run {
  constructor(opening) {
    Object.assign(this, { model: opening.model, layers: opening.layers, heads: opening.heads });
    this.tokens = opening.prompt.map((one) => ({ ...one, prompt: true }));
    this.promptLength = this.tokens.length;
    this.lens = []; // by position: for each stream [[text, p], …]
    this.norms = []; // by position: for each stream a number
    this.probe = opening.probe && { ...opening.probe, scores: [], read: [] }; // by position
    this.neurons = []; // by position: for each layer [[unit, value], …]
    this.attention = []; // by position: bytes by layer, head and key
  }

  take(event) {
    this.lens.push(...event.lens);
    this.norms.push(...event.norms);
    this.neurons.push(...event.neurons);
    this.probe?.scores.push(...event.probe.scores);
    this.probe?.read.push(...event.probe.read);
    const [layers, heads, queries, keys] = event.attention.shape;
    const all = bytes(event.attention.data);
    for (let query = 0; query < queries; query++) {
      const rows = new Uint8Array(layers * heads * keys);
      for (let line = 0; line < layers * heads; line++) {
        rows.set(all.subarray((line * queries + query) * keys, (line * queries + query + 1) * keys), line * keys);
      }
      this.attention.push({ keys, rows });
    }
    this.tokens.push({ id: event.token.id, text: event.token.text, p: event.token.p, top: event.token.top });
  }

  /** Positions that ran: all tokens but the last. */
  get positions() {
    return this.lens.length;
  }

  /** Attention of one head from `query` to each key up to it, from 0 to 1. */
  row(layer, head, query) {
    const at = this.attention[query];
    const start = (layer * this.heads + head) * at.keys;
    return Array.from(at.rows.subarray(start, start + Math.min(at.keys, query + 1)), (value) => value / 255);
  }

  /** The strongest look of a head from `query` to any token but the first. */
  look(layer, head, query) {
    const row = this.row(layer, head, query);
    let best = { key: 0, weight: query === 0 ? row[0] : 0 };
    for (let key = 1; key < row.length; key++) if (row[key] > best.weight) best = { key, weight: row[key] };
    return best;
  }
}

/** A token as it is shown: its space and its line breaks visible. */
export function shown(text) {
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ /, "·") || "∅";
}
