"""Encoders: prepared sound or sight of a clip in, features per step out. One file a family; `table` names them all."""
