// Where the windows of a text begin. Window k reads block_size tokens from k * stride on. A token is predicted by the
// first window that reaches the token before it; so behind the first window each prediction sees half a block at least.
function windowStart(k, block) {
  return k * Math.ceil(block / 2);
}

// The window that predicts token t.
function windowOf(t, block) {
  return t <= block ? 0 : Math.ceil((t - block) / Math.ceil(block / 2));
}

// The first token that window k predicts; of window 0 the first of all, although nothing predicts that one.
function firstPredicted(k, block) {
  return k === 0 ? 0 : windowStart(k - 1, block) + block + 1;
}
