"""Multi3DRefer: reader, prompt, metric and card of this benchmark."""
