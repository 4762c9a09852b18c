"""What reached the device: the dm-log-writes v1 log, crash states, images. Pure, no devices."""
