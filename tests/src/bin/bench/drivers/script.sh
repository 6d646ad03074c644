#!/bin/sh
# An image mounted by hand: `mount FOLDER IMAGE`, `unmount FOLDER`. The loop device ends with its mount.
case $1 in
  mount)
    device=$(losetup --find --show "$3") && mount -t ext4 -o nosuid,nodev "$device" "$2" && losetup -d "$device"
    ;;
  unmount) umount "$2" ;;
esac && echo '{"status": "Success"}'
