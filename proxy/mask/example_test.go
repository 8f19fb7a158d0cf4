package mask_test

import (
	"fmt"

	"github.com/jobgate/jobgate/proxy/mask"
)

func Example() {
	set, err := mask.Compile(mask.Config{
		Secrets: []mask.Secret{{Name: "deploy-key", Value: []byte("hunter2/hunter2")}},
		Key:     []byte("one of the session's own"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	st := set.NewStream()
	out := st.Write(nil, []byte("the key is hunter2%2"))
	fmt.Printf("%s (%d held)\n", out, st.Held())
	out = st.Write(nil, []byte("fhunter2, or aHVudGVyMi9odW50"))
	fmt.Printf("%s (%d held)\n", out, st.Held())
	fmt.Printf("%s\n", st.Close(st.Write(nil, []byte("ZXIy in base64"))))
	// Output:
	// the key is  (9 held)
	// [masked:deploy-key:9993fa46], or  (16 held)
	// [masked:deploy-key:9993fa46] in base64
}
