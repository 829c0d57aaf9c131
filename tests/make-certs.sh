#!/bin/sh
# make-certs.sh DIR - makes a certificate authority for tests in DIR, and what it signed:
#   ca.pem                     the authority; other-ca.pem: one that signed nothing
#   server.pem, server.key     for localhost, hpkv.test, 127.0.0.1 and ::1
#   chain.pem, chain.key       the same, signed by an authority between, whose certificate is in chain.pem as well
#   wrong.pem, wrong.key       for another host name
#   self.pem, self.key         for the right names, signed by itself
#   expired.pem, expired.key   for the right names, until yesterday
set -eu
dir=$1
mkdir -p "$dir"
cd "$dir"
names='subjectAltName=DNS:localhost,DNS:hpkv.test,IP:127.0.0.1,IP:::1'

authority() { # authority NAME
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=hpkvd test $1" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
		-keyout "$1.key" -out "$1.pem" 2>/dev/null
}

certificate() { # certificate NAME EXTENSIONS
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -addext "$2" \
		-keyout "$1.key" -out "$1.csr" 2>/dev/null
}

authority ca
authority other-ca
certificate server "$names"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=self -addext "$names" \
	-keyout self.key -out self.pem 2>/dev/null
certificate wrong 'subjectAltName=DNS:elsewhere.test'
certificate expired "$names"
for name in server wrong; do
	openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -days 30 -copy_extensions copy -out "$name.pem" 2>/dev/null
done
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=hpkvd test between' -addext basicConstraints=critical,CA:TRUE \
	-addext keyUsage=critical,keyCertSign -keyout between.key -out between.csr 2>/dev/null
openssl x509 -req -in between.csr -CA ca.pem -CAkey ca.key -days 30 -copy_extensions copy -out between.pem 2>/dev/null
certificate chain "$names"
openssl x509 -req -in chain.csr -CA between.pem -CAkey between.key -days 30 -copy_extensions copy -out chain.pem 2>/dev/null
cat between.pem >>chain.pem
# "openssl ca" is the tool that takes both dates (of OpenSSL 3.0's tools).
: >index
echo 01 >serial
cat >ca.conf <<CONF
[ca]
default_ca = d
[d]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = p
copy_extensions = copy
[p]
commonName = supplied
CONF
openssl ca -batch -notext -config ca.conf -cert ca.pem -keyfile ca.key -startdate 20200101000000Z -enddate 20200201000000Z \
	-in expired.csr -out expired.pem 2>/dev/null
