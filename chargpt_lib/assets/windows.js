// Where the windows of a text begin. Window k reads block_size tokens from k * stride on. A token is predicted by the
// first window that reaches the token before it; so behind the first window each prediction sees half a block at least.
function windowOf(t, block) {
  const stride = Math.ceil(block / 2);
  return t <= block ? 0 : Math.ceil((t - block) / stride);
}

function windowStart(k, block) {
  return k * Math.ceil(block / 2);
}
