"""ScanQA: reader, prompt, metric and card of this benchmark."""
