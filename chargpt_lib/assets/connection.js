// The model in a worker, or in the page itself where no worker can be had. opening: the arguments of `open`. isNeeded():
// whether the page still shows what asks. -> ask(method, ...args), a promise of the engine's answer.
// `computing` is the function whose text is the worker's program; playground.py makes it.
function connect(opening, isNeeded) {
  const questions = new Map(); // number -> {message, resolve, reject}
  let count = 0;
  let send = null; // null where no engine is running

  function receive({ number, result, error }) {
    const question = questions.get(number);
    if (question === undefined) {
      return; // the answer to `open`: where that fails, every question says so
    }
    questions.delete(number);
    if (error === undefined) {
      question.resolve(result);
    } else {
      question.reject(new Error(error));
    }
  }

  function begin(sender) {
    send = sender;
    send({ number: 0, method: "open", args: opening });
    for (const { message } of questions.values()) {
      send(message);
    }
  }

  function startHere() {
    const answer = computing()(receive);
    begin((message) => setTimeout(() => answer(message)));
  }

  function start() {
    let worker;
    try {
      const program = `"use strict";
        const answer = (${computing})()((reply) => postMessage(reply));
        onmessage = (event) => answer(event.data);`;
      worker = new Worker(URL.createObjectURL(new Blob([program], { type: "text/javascript" })));
    } catch {
      startHere();
      return;
    }
    worker.onmessage = (event) => receive(event.data);
    // Some pages allow no workers, and say so only now.
    worker.onerror = (event) => {
      event.preventDefault();
      worker.onerror = null;
      worker.terminate();
      startHere();
    };
    begin((message) => worker.postMessage(message));
    stopWhereNobodyAsks(worker);
  }

  // A cell that is run again leaves its old output's worker behind. JupyterLab also takes outputs away that are out of
  // sight, and brings them back: then the next question starts another worker.
  function stopWhereNobodyAsks(worker) {
    let absent = 0;
    const timer = setInterval(() => {
      absent = isNeeded() || questions.size > 0 ? 0 : absent + 1;
      if (absent === 3) {
        clearInterval(timer);
        worker.terminate();
        send = null;
      }
    }, 5000);
  }

  return (method, ...args) =>
    new Promise((resolve, reject) => {
      count += 1;
      const message = { number: count, method, args };
      if (send === null) {
        start();
      }
      questions.set(message.number, { message, resolve, reject });
      send(message);
    });
}
