"""ScanQA: prompt, metric and card of this benchmark."""
