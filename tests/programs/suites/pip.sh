# Wheels of Debian that pip installs on the mount: files are those that the wheels list.
. /suite/steps.sh
place=/share/pip
pip="pip --disable-pip-version-check --no-cache-dir --quiet"

install() {
    $pip install --no-index --find-links /usr/share/python-wheels --target $place pip setuptools
}

record() {
    python3 - <<'END'
import base64, csv, glob, hashlib
count = 0
for record in glob.glob("/share/pip/*.dist-info/RECORD"):
    for name, digest, size in csv.reader(open(record)):
        if digest and not name.startswith(".."):
            content = open(f"/share/pip/{name}", "rb").read()
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            assert (f"sha256={found.decode()}", str(len(content))) == (digest, size), name
            count += 1
assert count > 500, count
END
}

run() {
    said=$(PYTHONPATH=$place python3 -m pip --version 2>&1) && [ "${said#*$place}" != "$said" ]
    went=$?
    echo "$said"
    return $went
}

for name in install record run; do
    step $name $name
done
rm -rf $place
echo end
