# What stress-ng does to files, each for two seconds, with its checks.
. /suite/steps.sh
place=/share/stress
mkdir -p $place
sizes="--hdd-bytes 16M --fallocate-bytes 16M --iomix-bytes 16M --readahead-bytes 16M --seek-size 4M
    --copy-file-bytes 128M --fiemap-bytes 16M --sync-file-bytes 16M --sendfile-size 1M"
# These are about other file systems, or about all that are mounted.
others=" bind-mount binderfs dev-shm dup eventfd fanotify ioprio procfs sysfs umount verity "

# "class 'filesystem' stressors: access acl …"
for name in $(stress-ng --class 'filesystem?' 2>&1 | sed -n 's/.*stressors: *//p'); do
    case $others in
        *" $name "*) continue ;;
    esac
    stress-ng --$name 1 --timeout 2 --verify --temp-path $place $sizes > /tmp/stress.log 2>&1
    case $? in
        0) echo "passed $name" ;;
        3) echo "skipped $name: no resources" ;;
        4) echo "skipped $name: not of this kernel" ;;
        *)
            reason=$(sed -n 's/.*fail: *\[[0-9]*\] *//p' /tmp/stress.log | head -n 1)
            echo "failed $name: ${reason:-$(tail -n 1 /tmp/stress.log)}"
            ;;
    esac
done
step remove rm -rf $place
echo end
