const SLICE = 12; // milliseconds of computing before the page may answer
const EVERY = 32; // characters between two states that are kept of what was typed
const BLOCK = 2000; // characters of what is written, at least, that are laid out together

const network = new Network(data);
const idOf = new Map(data.characters.map((point, id) => [String.fromCodePoint(point), id]));
const labels = data.characters.map((point) => shown(point));
const place = (name) => document.getElementById(name);

/** How a character is shown; bytes that are no printable ASCII as \x80. */
function shown(point) {
  if (!data.bytes || (point >= 32 && point < 127) || point === 9 || point === 10) return String.fromCodePoint(point);
  return `\\x${point.toString(16).padStart(2, "0")}`;
}

/** The ids of a text, and how many of its characters the model never saw. */
function encode(text) {
  const all = data.bytes ? Array.from(new TextEncoder().encode(text)) : Array.from(text, (character) => idOf.get(character));
  const ids = all.filter((id) => id !== undefined);
  return { ids, skipped: all.length - ids.length };
}

/** A function from ids to their text, which holds back what may be the beginning of a character in bytes. */
function decoder() {
  const utf8 = new TextDecoder();
  return (ids, last) => (data.bytes
    ? utf8.decode(Uint8Array.from(ids), { stream: !last })
    : ids.map((id) => String.fromCodePoint(data.characters[id])).join(""));
}

const channel = new MessageChannel();
channel.port1.start();

/** Let the page paint and answer, without the delay of a timer. */
function pause() {
  return new Promise((resolve) => {
    channel.port1.addEventListener("message", resolve, { once: true });
    channel.port2.postMessage(null);
  });
}

/** A function that rests whenever a slice of computing is over, and tells whether it did. */
function rests() {
  let begun = performance.now();
  return async () => {
    if (performance.now() - begun < SLICE) return false;
    await pause();
    begun = performance.now();
    return true;
  };
}

/** How many ids two texts begin alike with. */
function commonBeginning(a, b) {
  let same = 0;
  while (same < a.length && same < b.length && a[same] === b[same]) same += 1;
  return same;
}

/** What was read of the typed text: its ids, the bits of each, and a mark after each EVERY of them to go on from. */
let typed = { ids: [], bits: [], marks: [{ state: network.zeroState(), logits: null }] };
let turn = 0; // of reading what is typed: a later one ends those before

/** Read the typed text, from the last mark before it differs from what was read before; null where it changed meanwhile. */
async function readTyped() {
  turn += 1;
  const own = turn;
  const { ids, skipped } = encode(place("prime").value);
  const mark = Math.floor(commonBeginning(ids, typed.ids) / EVERY);
  const begin = mark * EVERY;
  typed = { ids: ids.slice(0, begin), bits: typed.bits.slice(0, begin), marks: typed.marks.slice(0, mark + 1) };
  const state = network.copyState(typed.marks[mark].state);
  let { logits } = typed.marks[mark];
  const rest = rests();
  for (const id of ids.slice(begin)) {
    typed.bits.push(logits ? surprise(logits, id) : 0);
    typed.ids.push(id);
    logits = network.step(id, state);
    if (typed.ids.length % EVERY === 0) typed.marks.push({ state: network.copyState(state), logits });
    await rest();
    if (own !== turn) return null;
  }
  showTyped(skipped);
  return { state, logits };
}

let shownIds = []; // of the spans that colour what was typed

/** Colour what was typed: only the spans behind the first that differs are made anew. */
function showTyped(skipped) {
  const same = commonBeginning(shownIds, typed.ids);
  const spans = typed.ids.slice(same).map((id, k) => {
    const [label, bits] = [labels[id], typed.bits[same + k]];
    const span = characterSpan(label);
    span.style.backgroundColor = surpriseColour(bits);
    span.title = same + k ? `${readable(label)}: ${bits.toFixed(2)} bits` : `${readable(label)}: the first`;
    return span;
  });
  const all = place("typed");
  while (all.childNodes.length > same) all.lastChild.remove();
  all.append(...spans);
  shownIds = typed.ids.slice();
  tell(skipped);
}

/** Say how much was typed, how much it surprised, and what is before the caret. */
function tell(skipped) {
  const scored = typed.bits.slice(1);
  const mean = scored.reduce((a, b) => a + b, 0) / Math.max(scored.length, 1);
  const left = skipped ? ` ${skipped} that the model never saw left out.` : "";
  const last = typed.ids.length - 1;
  const latest = last > 0 ? ` The last, ${readable(labels[typed.ids[last]])}: ${typed.bits[last].toFixed(2)}.` : "";
  place("told").textContent = `${typed.ids.length} characters${scored.length ? `, ${mean.toFixed(2)} bits each` : ""}.${latest}${left}`;
}

/** A number's field, within its bounds; what is no number counts as its default. */
function setting(name) {
  const field = place(name);
  const value = field.value === "" || Number.isNaN(field.valueAsNumber) ? Number(field.defaultValue) : field.valueAsNumber;
  const bounded = Math.max(value, Number(field.min));
  return field.max === "" ? bounded : Math.min(bounded, Number(field.max));
}

/** A function that adds to what is written, in blocks of some lines: the page need not lay out all of it each time. */
function writer(begin) {
  let block = element("div", begin);
  place("written").replaceChildren(block);
  return (piece) => {
    block.append(piece);
    if (block.textContent.length < BLOCK || !piece.endsWith("\n")) return;
    block = element("div");
    place("written").append(block);
  };
}

let writing = false;

/** Give one of the two buttons to press, with the focus if the other had it. */
function offer(name, other) {
  const focused = document.activeElement === place(other);
  place(name).disabled = false;
  if (focused) place(name).focus();
  place(other).disabled = true;
}

/** Write text after what was typed, until its length is reached or Stop. */
async function write() {
  if (writing) return;
  writing = true;
  offer("stop", "write");
  const begun = performance.now();
  let count = 0;
  let read = null;
  while (writing && !read) read = await readTyped(); // again where more was typed meanwhile
  if (read) {
    const cuts = { temperature: setting("temperature"), topN: setting("top-n"), topP: setting("top-p") };
    const [length, random, decode, rest] = [setting("length"), generator(setting("seed")), decoder(), rests()];
    const { state } = read;
    let logits = read.logits ?? network.step(data.start, state);
    const append = writer(place("prime").value);
    let pending = [];
    while (count < length && writing) {
      const id = choose(logits, random(), cuts);
      pending.push(id);
      count += 1;
      logits = network.step(id, state);
      if (await rest()) append(decode(pending.splice(0), false));
    }
    append(decode(pending, true));
  }
  const seconds = (performance.now() - begun) / 1000;
  place("speed").textContent = `${count} characters in ${seconds.toFixed(1)} s, ${Math.round(count / Math.max(seconds, 0.001))} a second.`;
  writing = false;
  offer("write", "stop");
}

place("prime").addEventListener("input", readTyped);
place("write").addEventListener("click", write);
place("stop").addEventListener("click", () => {
  writing = false;
  readTyped(); // ends the reading that may be under way, and colours what was typed
});
readTyped();
