# What a file says of how it was made: its build-id, its compilers, and the note of the package that it was built for.
package='{"type":"deb","os":"debian","name":"house","version":"1.2-3","architecture":"amd64"}'
gcc -O1 -fPIC -shared -Wl,--build-id=0x5eed0123 -Xlinker --package-metadata="$package" -o libhouse.so house.c
