"""Studies over several networks or conditions: ablation, other cameras imitated, windows without tracking, calibration."""
