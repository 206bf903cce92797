const Id = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[data.id_bytes];
const ids = numbers(Id, data.ids);
const bits = numbers(Float32Array, data.bits);
const likeliest = numbers(Id, data.likeliest);
const probabilities = numbers(Uint16Array, data.probabilities);
const activations = numbers(Int8Array, data.activations);
const influence = numbers(Uint8Array, data.back);
const kept = likeliest.length / ids.length; // likeliest characters of each distribution

const text = document.getElementById("text");
const told = document.getElementById("told");
const cell = document.getElementById("cell");
const spans = Array.from(ids, (id) => characterSpan(data.labels[id]));
let current = 0;

/** The likeliest characters before character n was read, as [label, probability]. */
function expected(n) {
  const places = Array.from({ length: n ? kept : 0 }, (_, k) => n * kept + k);
  return places.map((place) => [data.labels[likeliest[place]], probabilities[place] / 65535]);
}

/** The same as text. */
function expectedWords(n) {
  return expected(n).map(([label, p]) => `${readable(label)} ${(100 * p).toFixed(1)}%`).join(", ");
}

/** Influence of the character at a distance on the prediction of character n, as a fraction of the strongest. */
function share(n, distance) {
  return distance > 0 && distance <= Math.min(n, data.distance) ? influence[(n - 1) * data.distance + distance - 1] / 255 : 0;
}

/** The three earlier characters with the most influence on a prediction, as text. */
function mostInfluential(n) {
  const distances = Array.from({ length: Math.min(n, data.distance) }, (_, k) => k + 1);
  const strongest = distances.sort((a, b) => share(n, b) - share(n, a)).slice(0, 3);
  return strongest.map((distance) => `${readable(data.labels[ids[n - distance]])} (${distance} back)`).join(", ");
}

function describe(n) {
  const surprise = n ? `${bits[n].toFixed(2)} bits; expected: ${expectedWords(n)}` : "nothing to predict it from";
  const level = activations[Number(cell.value) * ids.length + n] / 127;
  const influences = n && mode() === "back" ? ` Most influence: ${mostInfluential(n)}.` : "";
  return `Character ${n + 1}, ${readable(data.labels[ids[n]])}: ${surprise}. The cell: ${level.toFixed(2)}.${influences}`;
}

/** Background colour of a character in a mode. */
function colour(mode, n) {
  if (mode === "surprise") return surpriseColour(n ? bits[n] : 0);
  if (mode === "cell") {
    const level = activations[Number(cell.value) * ids.length + n] / 127;
    return `rgb(${level < 0 ? "0 114 178" : "213 94 0"} / ${(0.8 * Math.abs(level)).toFixed(3)})`;
  }
  return `rgb(0 158 115 / ${(0.85 * share(current, current - n)).toFixed(3)})`;
}

function mode() {
  return document.querySelector("input[name=mode]:checked").value;
}

/** Colour the characters from `begin` to before `end`. */
function paint(begin, end) {
  const shown = mode();
  for (let n = Math.max(begin, 0); n < end; n += 1) spans[n].style.backgroundColor = colour(shown, n);
}

function paintAll() {
  told.textContent = describe(current);
  paint(0, spans.length);
}

/** Select a character. */
function select(n) {
  const before = current;
  spans[before].classList.remove("current");
  current = Math.min(Math.max(n, 0), spans.length - 1);
  spans[current].classList.add("current");
  told.textContent = describe(current);
  if (mode() === "back") for (const end of [before, current]) paint(end - data.distance, end);
}

/** The character one line up (-1) or down (1), by positions on the screen. */
function lineNeighbour(direction) {
  const { left, top } = spans[current].getBoundingClientRect();
  let n = current;
  while (spans[n + direction] && Math.abs(spans[n].getBoundingClientRect().top - top) < 2) n += direction;
  const line = spans[n].getBoundingClientRect().top;
  while (spans[n + direction] && Math.abs(spans[n + direction].getBoundingClientRect().top - line) < 2
    && (direction > 0 ? spans[n].getBoundingClientRect().left < left : spans[n].getBoundingClientRect().left > left)) n += direction;
  return n;
}

const keys = {
  ArrowLeft: () => current - 1, ArrowRight: () => current + 1, ArrowUp: () => lineNeighbour(-1), ArrowDown: () => lineNeighbour(1),
  Home: () => 0, End: () => spans.length - 1,
};

const placeOf = new Map(spans.map((span, n) => [span, n]));
let pointer = "";
text.append(...spans);
text.addEventListener("mousemove", (event) => {
  const where = `${event.clientX},${event.clientY}`;
  const n = placeOf.get(event.target);
  if (where === pointer || n === undefined) return; // same position: the text scrolled under the mouse
  pointer = where;
  if (n !== current) select(n);
});
text.addEventListener("keydown", (event) => {
  if (!(event.key in keys) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  select(keys[event.key]());
  spans[current].scrollIntoView({ block: "nearest" });
});
document.querySelectorAll("input[name=mode]").forEach((input) => input.addEventListener("change", paintAll));
cell.addEventListener("change", () => {
  document.querySelector("input[value=cell]").checked = true;
  paintAll();
});

/** Build the table of all characters when it is first opened. */
document.getElementById("numbers").addEventListener("toggle", (event) => {
  const place = event.target.querySelector("div");
  if (place.firstChild) return;
  const table = element("table");
  const head = table.createTHead().insertRow();
  for (const name of ["place", "character", "bits", "expected"]) {
    const title = element("th", name);
    title.scope = "col";
    head.append(title);
  }
  const body = table.createTBody();
  for (let n = 0; n < ids.length; n += 1) {
    const row = body.insertRow();
    for (const value of [String(n + 1), readable(data.labels[ids[n]]), n ? bits[n].toFixed(3) : "", expectedWords(n)]) {
      row.insertCell().textContent = value;
    }
  }
  place.append(table);
});

select(0);
paintAll();
