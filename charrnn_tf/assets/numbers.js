"use strict";

/** The page's data, as it was written beside the scripts. */
const data = JSON.parse(document.getElementById("data").textContent);

/** Numbers of a typed array's kind from base64 of their bytes, little-endian. */
function numbers(Kind, text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length); // a loop: Uint8Array.from takes twenty times as long
  for (let n = 0; n < binary.length; n += 1) bytes[n] = binary.charCodeAt(n);
  return new Kind(bytes.buffer);
}

/** A new element with a text (never markup) and a class. */
function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** A character as a person can read it: what shows nothing, or turns a line around, by its name or number. */
function readable(label) {
  const names = { " ": "space", "\n": "newline", "\t": "tab", "\r": "carriage return" };
  if (names[label]) return names[label];
  const hidden = /^[\p{C}\p{Z}\p{M}]$/u.test(label);
  return hidden ? `U+${label.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}` : label;
}

/** The ground on which so many bits of surprise are shown: clear at 0, strongest from 8 on. */
function surpriseColour(bits) {
  return `rgb(213 94 0 / ${(0.8 * Math.min(Math.max(bits, 0) / 8, 1)).toFixed(3)})`;
}

/** A span that shows one character of a text. */
function characterSpan(label) {
  return element("span", label, label === "\n" ? "newline" : "");
}
