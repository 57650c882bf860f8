"use strict";
// Numbers as people read them.

const whole = (x) => x.toLocaleString("en", {maximumFractionDigits: 0});
const percent = (share) => (100 * share).toFixed(share < .1 ? 1 : 0) + " %";

/** Any number in three or four digits, without an exponent where that is possible. */
function short(x) {
  if (Number.isInteger(x) || Math.abs(x) >= 1e4) return x.toLocaleString("en", {maximumFractionDigits: 0});
  return Math.abs(x) < 1e-6 ? x.toExponential(1) : String(Number(x.toPrecision(3)));
}

const UNITS = [[100, "%"], [1e3, "per 1,000"], [1e6, "per million"], [1e9, "per billion"]];

/** The unit of a column of probabilities: the first in which the largest is at least 1. */
function unitOf(probabilities) {
  const most = Math.max(...probabilities, 0);
  return UNITS.find(([scale]) => most * scale >= 1) ?? UNITS.at(-1);
}

/** A probability of a column that has a unit. */
function inUnit(p, [scale]) {
  const x = p * scale;
  if (x > 0 && x < .01) return "< 0.01";
  return x >= 100 ? whole(x) : x.toFixed(x >= 10 ? 1 : 2);
}

/** A title with its unit, and the text of each value. */
function inOneUnit(title, values, isProbability) {
  if (isProbability) {
    const unit = unitOf(values);
    return [`${title}, ${unit[1]}`, values.map((p) => inUnit(p, unit))];
  }
  return [`${title}, as logged`, inDecimals(values)];
}

/** Numbers with the decimals that show three digits of the largest. */
function inDecimals(values) {
  const most = Math.max(...values.map(Math.abs)), decimals = most > 0 ? Math.min(9, Math.max(0, 2 - Math.floor(Math.log10(most)))) : 0;
  return values.map((x) => x.toLocaleString("en", {minimumFractionDigits: decimals, maximumFractionDigits: decimals}));
}
