#!/bin/bash
# A FlexVolume driver for image files as people write them: jq, losetup and mount(8).

answer() {
  echo "$1"
  exit 0
}

failure() {
  answer "$(jq -n -c --arg m "$1" '{status: "Failure", message: $m}')"
}

do_mount() {
  local dir=$1 options=$2 path type device message
  path=$(echo "$options" | jq -r '.path')
  type=$(echo "$options" | jq -r '.["kubernetes.io/fsType"] // "ext4"')
  if findmnt -n "$dir" >/dev/null 2>&1; then
    answer '{"status": "Success"}'
  fi
  mkdir -p "$dir"
  if ! device=$(losetup --find --show "$path" 2>&1); then
    failure "losetup $path: $device"
  fi
  if ! message=$(mount -t "$type" -o nosuid,nodev "$device" "$dir" 2>&1); then
    losetup -d "$device"
    failure "mount $device at $dir: $message"
  fi
  answer '{"status": "Success"}'
}

do_unmount() {
  local dir=$1 device message
  device=$(findmnt -n -o SOURCE "$dir" 2>/dev/null)
  if [ -n "$device" ]; then
    if ! message=$(umount "$dir" 2>&1); then
      failure "umount $dir: $message"
    fi
    losetup -d "$device"
  fi
  rmdir "$dir" 2>/dev/null
  answer '{"status": "Success"}'
}

case $1 in
  init) answer '{"status": "Success", "capabilities": {"attach": false}}' ;;
  mount) do_mount "$2" "$3" ;;
  unmount) do_unmount "$2" ;;
  *) answer '{"status": "Not supported"}' ;;
esac
