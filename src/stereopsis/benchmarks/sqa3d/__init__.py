"""SQA3D: reader, prompt, metric and card of this benchmark."""
