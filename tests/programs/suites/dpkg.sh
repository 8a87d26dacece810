# A small system that dpkg unpacks from its packages: the files are those of the packages.
place=/share/dpkg
mkdir -p $place/var/lib/dpkg/info $place/var/lib/dpkg/updates $place/var/lib/dpkg/triggers
: > $place/var/lib/dpkg/status
dpkg="dpkg --root=$place --force-depends --force-bad-path --force-script-chrootless"

# Those whose scripts would change the system that dpkg runs in are left out.
packages=
for package in /share/debs/*.deb; do
    dpkg-deb --ctrl-tarfile "$package" | tar t | grep -q '^./preinst$' || packages="$packages $package"
done
names=$(for package in $packages; do dpkg-deb --field $package Package; done)

if $dpkg --unpack $packages > /tmp/dpkg.log 2>&1; then
    echo "passed unpack"
else
    echo "failed unpack: $(grep error /tmp/dpkg.log | head -n 1)"
fi

# dpkg compares contents, and tar owners, modes, times and links as well.
verified=$($dpkg --verify 2>&1)
if [ -z "$verified" ]; then echo "passed verify"; else echo "failed verify: $(echo "$verified" | head -n 1)"; fi

differ=
for package in $packages; do
    found=$(dpkg-deb --fsys-tarfile $package | tar --compare -C $place --same-permissions 2>&1)
    # Packages share directories, of which the last one's time is left.
    found=$(echo "$found" | grep -v '^[^:]*/: Mod time differs$' | head -n 1)
    [ -z "$found" ] || differ="$package $found"
done
if [ -z "$differ" ]; then echo "passed compare"; else echo "failed compare: $differ"; fi

# Once more over what is there, which keeps the files and replaces them one by one.
if $dpkg --unpack $packages > /tmp/dpkg.log 2>&1 && [ -z "$($dpkg --verify 2>&1)" ]; then
    echo "passed again"
else
    echo "failed again: $(grep error /tmp/dpkg.log | head -n 1)"
fi
echo "# $(echo $names | wc -w) packages, $(find $place | wc -l) files"
rm -rf $place
echo end
