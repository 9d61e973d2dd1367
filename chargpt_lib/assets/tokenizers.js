// The tokenizers of lessons 00 and 14. Each has `unit`, `size`, encode(text) -> ids, and pieces(ids).
// What characters cannot be encoded is found before: unknown(text) -> where in the text, counted in characters.
// pieces(ids) -> [{text, from, to}]: the shortest texts of whole characters, and which tokens each is made of.
// text(id): a token by itself.

class CharTokenizer {
  constructor({ alphabet }) {
    this.unit = "character";
    this.alphabet = Array.from(alphabet);
    this.size = this.alphabet.length;
    this.ids = new Map(this.alphabet.map((char, id) => [char, id]));
  }

  unknown(text) {
    const places = [];
    Array.from(text).forEach((char, place) => {
      if (!this.ids.has(char)) {
        places.push(place);
      }
    });
    return places;
  }

  encode(text) {
    return Array.from(text, (char) => this.ids.get(char));
  }

  pieces(ids) {
    return ids.map((id, t) => ({ text: this.alphabet[id], from: t, to: t + 1 }));
  }

  text(id) {
    return this.alphabet[id];
  }
}

// Python's patterns in JavaScript's words: what cannot match in two ways needs no possessive quantifier, and Python's \s
// is Unicode's white space.
const PATTERNS = {
  gpt2: /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
  gpt4: /'(?:[sdmtSDMTſ]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*|\p{White_Space}*[\r\n]|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
};

class BPETokenizer {
  constructor({ merges, byte_ids, special_tokens, pattern }) {
    this.unit = "token";
    this.byteIds = byte_ids;
    this.tokens = []; // the bytes of each id
    byte_ids.forEach((id, byte) => {
      this.tokens[id] = [byte];
    });
    this.ranks = new Map();
    merges.forEach(([left, right, id], rank) => {
      this.tokens[id] = this.tokens[left].concat(this.tokens[right]);
      this.ranks.set(`${left} ${right}`, { rank, id });
    });
    this.specials = new Map(Object.entries(special_tokens));
    for (const [text, id] of this.specials) {
      this.tokens[id] = Array.from(new TextEncoder().encode(text));
    }
    this.size = this.tokens.length;
    this.pattern = PATTERNS[pattern];
  }

  // Any text has bytes, so there is nothing that cannot be encoded.
  unknown() {
    return [];
  }

  encode(text) {
    const ids = [];
    for (const part of this.splitAtSpecials(text)) {
      if (this.specials.has(part)) {
        ids.push(this.specials.get(part));
      } else {
        for (const [word] of part.matchAll(this.pattern)) {
          ids.push(...this.encodeWord(word));
        }
      }
    }
    return ids;
  }

  splitAtSpecials(text) {
    const texts = Array.from(this.specials.keys()).sort((a, b) => b.length - a.length);
    if (texts.length === 0) {
      return [text];
    }
    const escaped = texts.map((special) => special.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    return text.split(new RegExp(`(${escaped.join("|")})`)).filter((part) => part !== "");
  }

  // Merges the bytes of a word, the earliest merge first.
  encodeWord(word) {
    let ids = Array.from(new TextEncoder().encode(word), (byte) => this.byteIds[byte]);
    while (true) {
      let first = null;
      for (let i = 0; i + 1 < ids.length; i++) {
        const merge = this.ranks.get(`${ids[i]} ${ids[i + 1]}`);
        if (merge !== undefined && (first === null || merge.rank < first.merge.rank)) {
          first = { merge, left: ids[i], right: ids[i + 1] };
        }
      }
      if (first === null) {
        return ids;
      }
      const merged = [];
      for (let i = 0; i < ids.length; i++) {
        if (ids[i] === first.left && ids[i + 1] === first.right) {
          merged.push(first.merge.id);
          i += 1;
        } else {
          merged.push(ids[i]);
        }
      }
      ids = merged;
    }
  }

  pieces(ids) {
    const pieces = [];
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    let from = 0;
    let bytes = [];
    ids.forEach((id, t) => {
      bytes = bytes.concat(this.tokens[id]);
      // Only the bytes of a character that is not complete yet wait for the next token.
      if (t + 1 === ids.length || !endsInsideCharacter(bytes)) {
        // A text field would make a line end of a carriage return, and lose count.
        const text = decoder.decode(Uint8Array.from(bytes)).replaceAll("\r", "␍");
        pieces.push({ text, from, to: t + 1 });
        from = t + 1;
        bytes = [];
      }
    });
    return pieces;
  }

  // Bytes that are only a part of a character are written as in \xe2.
  text(id) {
    const bytes = this.tokens[id];
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
    if (!text.includes("\ufffd")) {
      return text;
    }
    return bytes.map((byte) => (byte < 128 ? String.fromCharCode(byte) : `\\x${byte.toString(16)}`)).join("");
  }
}

// Whether the last bytes are the beginning of a UTF-8 character that is longer.
function endsInsideCharacter(bytes) {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back];
    if (byte >= 0xc0) {
      const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return length > back;
    }
    if (byte < 0x80) {
      return false;
    }
  }
  return false;
}

function openTokenizer(saved) {
  return saved.type === "char" ? new CharTokenizer(saved) : new BPETokenizer(saved);
}
