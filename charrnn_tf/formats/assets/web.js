const SLICE = 12; // milliseconds of computing between pauses in which the page can respond
const EVERY = 32; // typed characters between two saved states
const BLOCK = 2000; // generated characters after which a new element begins

const network = new Network(data);
const idOf = new Map(data.characters.map((point, id) => [String.fromCodePoint(point), id]));
const labels = data.characters.map((point) => shown(point));
const byId = (name) => document.getElementById(name);

/** Display text of a character; bytes outside printable ASCII as \x80. */
function shown(point) {
  if (!data.bytes || (point >= 32 && point < 127) || point === 9 || point === 10) return String.fromCodePoint(point);
  return `\\x${point.toString(16).padStart(2, "0")}`;
}

/** The ids of a text, and the number of its characters outside the vocabulary. */
function encode(text) {
  const all = data.bytes ? Array.from(new TextEncoder().encode(text)) : Array.from(text, (character) => idOf.get(character));
  const ids = all.filter((id) => id !== undefined);
  return { ids, skipped: all.length - ids.length };
}

/** A function from ids to text that holds back incomplete UTF-8 characters of a byte model. */
function decoder() {
  const utf8 = new TextDecoder();
  return (ids, last) => (data.bytes
    ? utf8.decode(Uint8Array.from(ids), { stream: !last })
    : ids.map((id) => String.fromCodePoint(data.characters[id])).join(""));
}

const channel = new MessageChannel();
channel.port1.start();

/** Let the page paint and respond, without the delay of a timer. */
function pause() {
  return new Promise((resolve) => {
    channel.port1.addEventListener("message", resolve, { once: true });
    channel.port2.postMessage(null);
  });
}

/** A function that pauses at the end of each slice of computing, and returns whether it did. */
function pauser() {
  let begun = performance.now();
  return async () => {
    if (performance.now() - begun < SLICE) return false;
    await pause();
    begun = performance.now();
    return true;
  };
}

/** Length of the common prefix of two lists of ids. */
function commonPrefix(a, b) {
  let same = 0;
  while (same < a.length && same < b.length && a[same] === b[same]) same += 1;
  return same;
}

/** The typed text as read so far: ids, bits of each, and states after every EVERY ids to continue from. */
let typed = { ids: [], bits: [], saved: [{ state: network.initialState(), logits: null }] };
let turn = 0; // number of the latest reading of the typed text; earlier ones end

/** Read the typed text from the last saved state before a difference; null if it changed meanwhile. */
async function readTyped() {
  turn += 1;
  const own = turn;
  const { ids, skipped } = encode(byId("prime").value);
  const last = Math.floor(commonPrefix(ids, typed.ids) / EVERY);
  const begin = last * EVERY;
  typed = { ids: ids.slice(0, begin), bits: typed.bits.slice(0, begin), saved: typed.saved.slice(0, last + 1) };
  const state = network.copyState(typed.saved[last].state);
  let { logits } = typed.saved[last];
  const pauseIfDue = pauser();
  for (const id of ids.slice(begin)) {
    typed.bits.push(logits ? surprise(logits, id) : 0);
    typed.ids.push(id);
    logits = network.step(id, state);
    if (typed.ids.length % EVERY === 0) typed.saved.push({ state: network.copyState(state), logits });
    await pauseIfDue();
    if (own !== turn) return null;
  }
  showTyped(skipped);
  return { state, logits };
}

let shownIds = []; // of the coloured spans

/** Colour the typed text; only spans from the first difference on are replaced. */
function showTyped(skipped) {
  const same = commonPrefix(shownIds, typed.ids);
  const spans = typed.ids.slice(same).map((id, k) => {
    const [label, bits] = [labels[id], typed.bits[same + k]];
    const span = characterSpan(label);
    span.style.backgroundColor = surpriseColour(bits);
    span.title = same + k ? `${readable(label)}: ${bits.toFixed(2)} bits` : `${readable(label)}: first character`;
    return span;
  });
  const all = byId("typed");
  while (all.childNodes.length > same) all.lastChild.remove();
  all.append(...spans);
  shownIds = typed.ids.slice();
  describe(skipped);
}

/** Show the number of typed characters, their mean surprise, the last one's, and the number skipped. */
function describe(skipped) {
  const scored = typed.bits.slice(1);
  const mean = scored.reduce((a, b) => a + b, 0) / Math.max(scored.length, 1);
  const unknown = skipped ? ` ${skipped} skipped: not in the vocabulary.` : "";
  const last = typed.ids.length - 1;
  const latest = last > 0 ? ` Last, ${readable(labels[typed.ids[last]])}: ${typed.bits[last].toFixed(2)} bits.` : "";
  byId("told").textContent = `${typed.ids.length} characters${scored.length ? `, ${mean.toFixed(2)} bits per character` : ""}.${latest}${unknown}`;
}

/** The value of a number field, limited to its bounds; the default if it is not a number. */
function setting(name) {
  const field = byId(name);
  const value = field.value === "" || Number.isNaN(field.valueAsNumber) ? Number(field.defaultValue) : field.valueAsNumber;
  const bounded = Math.max(value, Number(field.min));
  return field.max === "" ? bounded : Math.min(bounded, Number(field.max));
}

/** A function that appends to the generated text in blocks of lines, so that only the last block is laid out again. */
function writer(begin) {
  let block = element("div", begin);
  byId("written").replaceChildren(block);
  return (piece) => {
    block.append(piece);
    if (block.textContent.length < BLOCK || !piece.endsWith("\n")) return;
    block = element("div");
    byId("written").append(block);
  };
}

let writing = false;

/** Enable one of two buttons instead of the other, and move the focus along. */
function enable(name, other) {
  const focused = document.activeElement === byId(other);
  byId(name).disabled = false;
  if (focused) byId(name).focus();
  byId(other).disabled = true;
}

/** Generate text after the typed one, until its length is reached or Stop is pressed. */
async function write() {
  if (writing) return;
  writing = true;
  enable("stop", "write");
  const begun = performance.now();
  let count = 0;
  let read = null;
  while (writing && !read) read = await readTyped(); // again if more was typed meanwhile
  if (read) {
    const cuts = { temperature: setting("temperature"), topN: setting("top-n"), topP: setting("top-p") };
    const [length, random, decode, pauseIfDue] = [setting("length"), generator(setting("seed")), decoder(), pauser()];
    const { state } = read;
    let logits = read.logits ?? network.step(data.start, state);
    const append = writer(byId("prime").value);
    let pending = [];
    while (count < length && writing) {
      const id = choose(logits, random(), cuts);
      pending.push(id);
      count += 1;
      logits = network.step(id, state);
      if (await pauseIfDue()) append(decode(pending.splice(0), false));
    }
    append(decode(pending, true));
  }
  const seconds = (performance.now() - begun) / 1000;
  byId("speed").textContent = `${count} characters in ${seconds.toFixed(1)} s, ${Math.round(count / Math.max(seconds, 0.001))} per second.`;
  writing = false;
  enable("write", "stop");
}

byId("prime").addEventListener("input", readTyped);
byId("write").addEventListener("click", write);
byId("stop").addEventListener("click", () => {
  writing = false;
  readTyped(); // ends a reading in progress, and colours the typed text
});
readTyped();
