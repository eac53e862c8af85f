"""bmla: balanced multimodal learning for audio-visual research."""

__version__ = "0.1.0"
