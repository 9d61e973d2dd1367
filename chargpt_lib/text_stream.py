"""Ids to text as the ids come: pieces of a character are put together, and a stop string ends the text."""


class TextStream:
    """The text of one row while its ids come, up to the first stop string.

    A tokenizer for pieces of words may cut a character in two. `decode` ends with U+FFFD after the first half; then the
    stream writes the text before it and waits for the other half.
    """

    def __init__(self, tokenizer, stop):
        self.tokenizer = tokenizer
        self.stop = stop
        self.text = ""
        self.pending = []  # ids whose last character is still incomplete
        self.shown = 0  # how many characters of these ids are already written
        self.ended = False

    def add(self, i):
        """The next id -> the new characters, "" where there are none."""
        if self.ended:
            return ""
        self.pending.append(i)
        text = self.tokenizer.decode(self.pending)
        whole = text.removesuffix("\ufffd")
        piece = whole[self.shown :]
        self.shown = len(whole)
        if whole == text:
            self.pending = []
            self.shown = 0
        return self.write(piece)

    def flush(self):
        """Writes what is still pending after the last id -> the new characters."""
        if self.ended or not self.pending:
            return ""
        return self.write(self.tokenizer.decode(self.pending)[self.shown :])

    def write(self, piece):
        """Appends a piece, cut after the first stop string -> what was appended."""
        old = len(self.text)
        text = self.text + piece
        cuts = []
        for stop in self.stop:
            # A stop string may begin in the old text, but it ends in the new piece.
            place = text.find(stop, max(0, old - len(stop) + 1))
            if place >= 0:
                cuts.append(place + len(stop))
        if cuts:
            text = text[: min(cuts)]
            self.ended = True
        self.text = text
        return text[old:]
