/* Brings the figures of `zsar.widgets` to life in the built page: every state stands in the page, none is computed.
   Where this script does not run, the first state, its sentence, and a note on the others are there to read. */
"use strict";

function live(figure, {values, states}) {
  const controls = [...figure.querySelectorAll(".controls input, .controls select")];
  const place = control => Number(control.tagName === "SELECT" ? control.selectedIndex : control.value);

  function show() {
    let index = 0;
    controls.forEach((control, i) => {
      index = index * values[i].length + place(control);
      if (control.type !== "range") return;
      control.setAttribute("aria-valuetext", values[i][place(control)]);
      control.nextElementSibling.textContent = values[i][place(control)];
    });
    const [html, sentence] = states[index];
    figure.querySelector(".state").innerHTML = html;
    figure.querySelector(".sentence").textContent = sentence;
  }

  controls.forEach(control => control.addEventListener("input", show));
  figure.querySelector(".note").hidden = true;
  show(); // a browser may have kept another setting from an earlier visit
}

function guess(figure, rounds) {
  const [left, right, next] = figure.querySelectorAll("button");
  const sentence = figure.querySelector(".sentence");
  let round = 0, found = 0;

  function ask() {
    figure.querySelector(".state").innerHTML = rounds[round][0];
    sentence.textContent = `Pair ${round + 1} of ${rounds.length}.`;
    left.disabled = right.disabled = false;
    next.disabled = true;
  }

  function answer(side) {
    const [, attacked, verdict] = rounds[round];
    found += side === attacked;
    sentence.textContent = `${side === attacked ? "Right" : "Wrong"}. ${verdict} ` +
      `Found: ${found} of ${round + 1}; a coin finds half.`;
    next.disabled = false;
    next.textContent = round + 1 < rounds.length ? "next pair" : "begin again";
    next.focus(); // before the pressed button is disabled and loses the focus
    left.disabled = right.disabled = true;
  }

  left.addEventListener("click", () => answer(0));
  right.addEventListener("click", () => answer(1));
  next.addEventListener("click", () => {
    round = (round + 1) % rounds.length;
    if (!round) found = 0;
    ask();
    left.focus();
  });
  figure.querySelector("details").hidden = true;
  ask();
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("figure.zsar-live").forEach(figure => {
    const data = JSON.parse(figure.querySelector("script").textContent);
    (figure.classList.contains("guess") ? guess : live)(figure, data);
    figure.querySelector(".controls").hidden = false;
  });
});
