# Files that fio writes in several ways and reads again, each block with its own checksum.
. /suite/steps.sh
place=/share/fio
mkdir -p $place

why() { grep -a -m 1 'verify:\|error' $log; }

job() {
    name=$1
    shift
    step $name fio --name=$name --directory=$place --thread --verify=crc32c --verify_fatal=1 \
        --verify_state_save=0 "$@"
}

job sequential --rw=write --bs=128k --size=64M
# What is read now was not kept in the guest.
sync
echo 3 > /proc/sys/vm/drop_caches
job read-again --rw=read --bs=128k --size=64M --filename=sequential.0.0
job random --rw=randwrite --bs=4k --size=16M --numjobs=4
job unaligned --rw=randrw --bsrange=512-64k --bs_unaligned --size=16M --numjobs=2
job flushed --rw=write --bs=8k --size=4M --fsync=16 --numjobs=2
job mapped --ioengine=mmap --rw=randwrite --bs=4k --size=16M --numjobs=2
job mapped-sequential --ioengine=mmap --rw=write --bs=64k --size=32M
job direct --ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite --bs=4k --size=8M --numjobs=2
job vectors --ioengine=pvsync2 --rw=randwrite --bs=16k --size=16M --numjobs=2
# Two write one file, each its half of it.
job shared --rw=randwrite --bs=4k --size=8M --numjobs=2 --offset_increment=8M --filename=shared
rm -r $place
echo end
