"use strict";
// Numbers as people read them.

const whole = (x) => x.toLocaleString("en", {maximumFractionDigits: 0});
const percent = (share) => (100 * share).toFixed(share < .1 ? 1 : 0) + " %";

/** Any number in three or four digits, without an exponent where that is possible. */
function short(x) {
  if (Number.isInteger(x) || Math.abs(x) >= 1e4) return x.toLocaleString("en", {maximumFractionDigits: 0});
  return Math.abs(x) < 1e-6 ? x.toExponential(1) : String(Number(x.toPrecision(3)));
}

/** A probability alone: "12.3 %", "4.1 in 1,000", "1 in 12,000". */
function chance(p) {
  const rounded = Number(p.toPrecision(3));
  if (rounded > .999 && p < 1) return "over 99.9 %";
  if (rounded >= .01) return digits(100 * rounded) + " %";
  if (rounded >= .001) return digits(1000 * rounded) + " in 1,000";
  if (p >= 1e-9) return "1 in " + whole(Number((1 / p).toPrecision(2)));
  return p > 0 ? "less than 1 in a billion" : "0 %";
}

const digits = (x) => String(Number(x.toPrecision(3)));
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
