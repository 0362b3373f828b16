"""Multi3DRefer: prompt, metric and card of this benchmark."""
