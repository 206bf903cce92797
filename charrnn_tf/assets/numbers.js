"use strict";

/** The page's data, stored as JSON beside the scripts. */
const data = JSON.parse(document.getElementById("data").textContent);

/** Decode base64 of little-endian numbers into a typed array. */
function numbers(Kind, text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length); // Uint8Array.from takes twenty times as long
  for (let n = 0; n < binary.length; n += 1) bytes[n] = binary.charCodeAt(n);
  return new Kind(bytes.buffer);
}

/** A new element with a text (never markup) and a class. */
function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** A character's display name: invisible ones and those that change the text's direction by name or code point. */
function readable(label) {
  const names = { " ": "space", "\n": "newline", "\t": "tab", "\r": "carriage return" };
  if (names[label]) return names[label];
  const hidden = /^[\p{C}\p{Z}\p{M}]$/u.test(label);
  return hidden ? `U+${label.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}` : label;
}

/** Background colour for bits of surprise: transparent at 0, strongest from 8. */
function surpriseColour(bits) {
  return `rgb(213 94 0 / ${(0.8 * Math.min(Math.max(bits, 0) / 8, 1)).toFixed(3)})`;
}

/** A span that shows one character of a text. */
function characterSpan(label) {
  return element("span", label, label === "\n" ? "newline" : "");
}
