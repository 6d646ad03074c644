#!/bin/bash
# A FlexVolume driver for tmpfs as people write them: jq, findmnt and mount(8).

answer() {
  echo "$1"
  exit 0
}

usage() {
  answer '{"status": "Not supported", "message": "usage: init | mount <dir> <json> | unmount <dir>"}'
}

is_mounted() {
  findmnt -n "$1" >/dev/null 2>&1
}

do_mount() {
  local dir=$1 options=$2 size mode message
  size=$(echo "$options" | jq -r '.size // "64m"')
  mode=$(echo "$options" | jq -r '.mode // "0770"')
  if is_mounted "$dir"; then
    answer '{"status": "Success"}'
  fi
  mkdir -p "$dir"
  if ! message=$(mount -t tmpfs -o "nosuid,nodev,size=$size,mode=$mode" tmpfs "$dir" 2>&1); then
    answer "$(jq -n -c --arg m "mount tmpfs at $dir: $message" '{status: "Failure", message: $m}')"
  fi
  answer '{"status": "Success"}'
}

do_unmount() {
  local dir=$1 message
  if is_mounted "$dir"; then
    if ! message=$(umount "$dir" 2>&1); then
      answer "$(jq -n -c --arg m "umount $dir: $message" '{status: "Failure", message: $m}')"
    fi
  fi
  rmdir "$dir" 2>/dev/null
  answer '{"status": "Success"}'
}

case $1 in
  init) answer '{"status": "Success", "capabilities": {"attach": false}}' ;;
  mount) do_mount "$2" "$3" ;;
  unmount) do_unmount "$2" ;;
  *) usage ;;
esac
