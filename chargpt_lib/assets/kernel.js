// linear.wat, compiled, in base64. A test compiles it anew.
const LINEAR_WASM =
  "AGFzbQEAAAABDwJgAXsBfWAGf39/f39/AAIPAQNlbnYGbWVtb3J5AgABAwMCAAEHCgEGbGluZWFyAAEK3gMCGQAgAP0fACAA/R8BkiAA/R8CIAD9HwOSkgvBAwIGfwV7IARBBGwhCQNAQQAhBwNA/QwAAAAAAAAAAAAAAAAAAAAAIQ39DAAAAAAAAAAAAAAAAAAAAAAhDv0MAAAAAAAAAAAAAAAAAAAAACEP/QwAAAAAAAAAAAAAAAAAAAAAIRAgAiAHIAlsaiEIIAggCWohCyAAIAYgCWxqIQogASAGa0EETwRAA0AgCP0ABAAhDCANIAwgCv0ABAD95gH95AEhDSAOIAwgCiAJav0ABAD95gH95AEhDiAPIAwgCiAJQQJsav0ABAD95gH95AEhDyAQIAwgCiAJQQNsav0ABAD95gH95AEhECAKQRBqIQogCEEQaiEIIAggC0kNAAsgBUEEIAYgA2wgB2psaiEKIAogDRAAOAIAIAogA0EEbGohCiAKIA4QADgCACAKIANBBGxqIQogCiAPEAA4AgAgCiADQQRsaiEKIAogEBAAOAIABQNAIA0gCP0ABAAgCv0ABAD95gH95AEhDSAKQRBqIQogCEEQaiEIIAggC0kNAAsgBUEEIAYgA2wgB2psaiANEAA4AgALIAdBAWohByAHIANJDQALIAZBBEEBIAEgBmtBBE8baiEGIAYgAUkNAAsLAHgEbmFtZQEGAQADc3VtAkUCAAEAAXYBEQABeAEBVAIBdwMBTwQBSQUBeQYBdAcBbwgBaQkDcm93CgJhdAsDZW5kDAZ3ZWlnaHQNAWEOAWIPAWMQAWQDIgEBBAAGb3Zlcl90AQZvdmVyX28DBm92ZXJfaQQFYWxvbmU=";

// Matrices in the memory of a WebAssembly program that multiplies with them. The numbers of a matrix are put there once;
// x is copied in, y out.
class Kernel {
  // matrices: shapes [rows out, columns in]. most: how many rows x may have.
  // Throws where a browser has no WebAssembly, or a page forbids it.
  constructor(matrices, most) {
    const bytes = Uint8Array.from(atob(LINEAR_WASM), (char) => char.charCodeAt(0));
    const module = new WebAssembly.Module(bytes);
    const widths = matrices.map(([, columns]) => padded(columns));
    const weights = matrices.reduce((sum, [rows], n) => sum + rows * widths[n], 0);
    const room = weights + most * (Math.max(...widths) + Math.max(...matrices.map(([rows]) => rows)));
    const memory = new WebAssembly.Memory({ initial: Math.ceil((4 * room) / 65536) });
    this.linear = new WebAssembly.Instance(module, { env: { memory } }).exports.linear;
    this.numbers = new Float32Array(memory.buffer);
    this.most = most;
    this.used = 0;
    this.x = weights;
    this.y = weights + most * Math.max(...widths);
  }

  // Room for a matrix -> {at, numbers}; its rows are `padded` wide.
  place([rows, columns]) {
    const at = this.used;
    this.used += rows * padded(columns);
    return { at, numbers: this.numbers.subarray(at, this.used) };
  }

  // x (T, I) times the matrix (O, I) that was placed at `at` -> (T, O).
  product(x, T, at, [O, I]) {
    const width = padded(I);
    const y = new Float32Array(T * O);
    for (let start = 0; start < T; start += this.most) {
      const count = Math.min(this.most, T - start);
      for (let t = 0; t < count; t++) {
        const row = this.x + t * width;
        this.numbers.set(x.subarray((start + t) * I, (start + t + 1) * I), row);
        this.numbers.fill(0, row + I, row + width);
      }
      this.linear(4 * this.x, count, 4 * at, O, width, 4 * this.y);
      y.set(this.numbers.subarray(this.y, this.y + count * O), start * O);
    }
    return y;
  }
}

// Four numbers are taken at a time, so a row is filled up with zeros.
function padded(columns) {
  return 4 * Math.ceil(columns / 4);
}
