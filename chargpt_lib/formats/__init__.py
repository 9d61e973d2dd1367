"""Models and tokenizers in the files of other programs: transformers, nanoGPT, ONNX."""
