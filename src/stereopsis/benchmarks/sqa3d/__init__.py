"""SQA3D: prompt, metric and card of this benchmark."""
