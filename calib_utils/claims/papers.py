"""The papers whose statements are tested."""

SEMANTIC = "Trained on Tokens, Calibrated on Concepts (arXiv 2511.04869)"
LIFECYCLE = "On the Calibration of Large Language Models and Alignment (arXiv 2311.13240)"
CATTO = "Balancing Preferences and Confidence in Language Models (arXiv 2601.23096)"
REPAIR = "Restoring Calibration for Aligned Large Language Models (arXiv 2505.01997)"
