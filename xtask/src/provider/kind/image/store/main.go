// Copies the database of a containerd's store: without the times of its making and without leases, so that the same
// images are the same file.
package main

import (
	"log"
	"os"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: store FROM TO SECONDS")
	}
	seconds, err := strconv.ParseInt(os.Args[3], 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	stamp, err := time.Unix(seconds, 0).UTC().MarshalBinary()
	if err != nil {
		log.Fatal(err)
	}
	if err := convert(os.Args[1], os.Args[2], stamp); err != nil {
		log.Fatal(err)
	}
}

func convert(from, to string, stamp []byte) error {
	source, err := bbolt.Open(from, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer source.Close()
	// Each transaction would be waited for otherwise; the end is synced.
	target, err := bbolt.Open(to, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		return err
	}
	err = source.View(func(read *bbolt.Tx) error {
		return read.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			return fill(target, [][]byte{name}, bucket, stamp)
		})
	})
	if err != nil {
		return err
	}
	if err := target.Sync(); err != nil {
		return err
	}
	return target.Close()
}

// Writes a bucket in one transaction, and those in it each in one of its own: a transaction writes the buckets that it
// has changed in no certain order.
func fill(target *bbolt.DB, path [][]byte, from *bbolt.Bucket, stamp []byte) error {
	err := target.Update(func(write *bbolt.Tx) error {
		to, err := write.CreateBucketIfNotExists(path[0])
		for _, name := range path[1:] {
			if err == nil {
				to, err = to.CreateBucketIfNotExists(name)
			}
		}
		if err != nil {
			return err
		}
		return from.ForEach(func(key, value []byte) error {
			switch {
			case value == nil:
				return nil
			case string(key) == "createdat" || string(key) == "updatedat":
				return to.Put(key, stamp)
			default:
				return to.Put(key, value)
			}
		})
	})
	if err != nil {
		return err
	}
	return from.ForEachBucket(func(name []byte) error {
		if string(name) == "leases" {
			return nil
		}
		return fill(target, append(path[:len(path):len(path)], name), from.Bucket(name), stamp)
	})
}
